"""An inference request of the protocol: JSON, perhaps with binary tensors behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from skewless.contract.errors import RequestError
from skewless.serving.oip.binary_tensor import BinaryTensor
from skewless.serving.oip.datatypes import datatype
from skewless.serving.oip.json_tensor import JsonTensor

Tensor = JsonTensor | BinaryTensor
_BODY = "request body"
_SHAPE = 'send "inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}]'
MOST_DIMENSIONS = 8
_NOTHING: Mapping[str, Any] = {}


@dataclass(kw_only=True, slots=True)
class InferRequest:
    """What a client asks.

    Args:
        id: echoed in the reply, if given.
        parameters: of the request.
        inputs: by name.
        outputs: per output asked for, whether it goes as binary data; empty: the usual ones.
        binary: whether outputs go as binary data where nothing else is said.
    """

    id: str | None
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, bool]
    binary: bool


def parse_request(body: bytes, json_length: int | None = None) -> InferRequest:
    """Return the request in a body.

    NaN, Infinity and -Infinity are understood, which JSON does not know but clients send.

    >>> body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [7]}]}'
    >>> parse_request(body).inputs["x"].values()
    [7]

    Args:
        json_length: bytes of JSON (Inference-Header-Content-Length), binary data follows; None: all.

    Raises:
        RequestError: it is not of the protocol's shape.
    """
    if json_length is None:
        found, rest = _object(body), memoryview(b"")
    elif json_length > len(body):
        raise RequestError(
            _BODY, "is cut short", value=len(body), fix=f"send as many bytes as the header says: {json_length}"
        )
    else:
        whole = memoryview(body)
        found, rest = _object(bytes(whole[:json_length])), whole[json_length:]
    name = found.get("id")
    if name is not None and type(name) is not str:
        raise RequestError("request field 'id'", "is not a string", value=name, fix="send a string")
    parameters = parameters_of("request", found)
    binary = flag("request", parameters, "binary_data_output", default=False)
    asked = found.get("outputs")
    return InferRequest(
        id=name,
        parameters=parameters,
        inputs=_inputs(found, rest),
        outputs={} if asked is None else _outputs(asked, binary=binary),
        binary=binary,
    )


def parse_json(body: bytes) -> object:
    """Return what JSON says, NaN and infinities included; orjson can write all but those again.

    Raises:
        RequestError: it is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" in body or b"Infinity" in body:
            return _lenient(body)
        raise RequestError(_BODY, f"is not JSON: {error}", fix="send valid JSON") from None


def parameters_of(thing: str, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a request, an input or an output; none: an empty object.

    Raises:
        RequestError: they are no object.
    """
    parameters = found.get("parameters")
    if parameters is None:
        return _NOTHING
    if type(parameters) is not dict:
        raise RequestError(f"{thing} parameters", "are no object", value=parameters, fix="send an object")
    if "shared_memory_region" in parameters:
        raise RequestError(thing, "lies in shared memory, which is not supported", fix="send or ask for the data")
    return parameters


def flag(thing: str, parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """Return a parameter that is true or false.

    Raises:
        RequestError: it is something else.
    """
    value = parameters.get(name)
    if value is None:
        return default
    if type(value) is not bool:
        raise RequestError(f"{thing} parameter {name!r}", "is no truth value", value=value, fix="send true or false")
    return value


def _object(body: bytes) -> dict[str, Any]:
    found = parse_json(body)
    if type(found) is not dict:
        raise RequestError(_BODY, "is not a JSON object", fix=_SHAPE)
    return found


def _lenient(body: bytes) -> object:
    try:
        found: object = json.loads(body.decode())
        orjson.dumps(found)  # Python also takes lone surrogates, integers of any length, and more nesting
    except RecursionError:
        raise RequestError(_BODY, "is nested too deep", fix="send flat lists") from None
    except (ValueError, TypeError) as error:
        raise RequestError(_BODY, f"is not JSON: {error}", fix="send valid JSON") from None
    return found


def _inputs(found: Mapping[str, Any], rest: memoryview) -> dict[str, Tensor]:
    items = found.get("inputs")
    if type(items) is not list or not items:
        raise RequestError(_BODY, "has no inputs", fix=_SHAPE)
    inputs: dict[str, Tensor] = {}
    for item in items:
        tensor, rest = _tensor(item, rest)
        if tensor.name in inputs:
            raise RequestError(f"input {tensor.name!r}", "is there twice", fix="send each input once")
        inputs[tensor.name] = tensor
    if rest:
        raise RequestError(
            _BODY, "goes on behind its tensors", value=len(rest), fix="send binary_data_size with every binary tensor"
        )
    return inputs


def _tensor(item: Any, rest: memoryview) -> tuple[Tensor, memoryview]:  # noqa: ANN401 - of a request
    name = item.get("name") if type(item) is dict else None
    if type(name) is not str:
        raise RequestError("request field 'inputs'", "has an input without a name", fix=_SHAPE)
    kind = datatype(name, item.get("datatype"))
    shape, data = _shape(name, item.get("shape")), item.get("data")
    size = parameters_of(f"input {name!r}", item).get("binary_data_size") if item.get("parameters") else None
    if size is None and type(data) is list:
        return JsonTensor.of(name, kind, shape, data), rest
    if size is None or data is not None:
        raise RequestError(f"input {name!r}", "has no list of data", fix='send either "data": [...] or binary data')
    part, rest = _cut(f"input {name!r}", rest, size)
    return BinaryTensor.of(name, kind, shape, part), rest


def _shape(name: str, shape: Any) -> tuple[int, ...]:  # noqa: ANN401 - of a request
    if type(shape) is list and len(shape) <= MOST_DIMENSIONS:
        for length in shape:
            if type(length) is not int or length < 1:
                break
        else:
            return tuple(shape)
    raise RequestError(
        f"input {name!r}",
        "has no shape of lengths of 1 or more",
        value=shape,
        fix='send "shape": [rows] or [rows, columns]',
    )


def _cut(thing: str, rest: memoryview, size: Any) -> tuple[memoryview, memoryview]:  # noqa: ANN401 - of a request
    if type(size) is not int or size < 0:
        raise RequestError(
            f"{thing} parameter 'binary_data_size'",
            "is no length",
            value=size,
            fix="send the number of bytes",
        )
    if size > len(rest):
        raise RequestError(
            thing,
            f"is cut short: {len(rest)} of its {size} bytes are there",
            fix="send the length of the JSON as Inference-Header-Content-Length, then the data of all tensors",
        )
    return rest[:size], rest[size:]


def _outputs(items: Any, *, binary: bool) -> dict[str, bool]:  # noqa: ANN401 - of a request
    outputs: dict[str, bool] = {}
    for item in items if type(items) is list else [None]:
        if type(item) is not dict or type(item.get("name")) is not str:
            raise RequestError("request field 'outputs'", "is no list of names", fix='send "outputs": [{"name": ...}]')
        name: str = item["name"]
        thing = f"output {name!r}"
        if name in outputs:
            raise RequestError(thing, "is asked for twice", fix="ask once")
        parameters = parameters_of(thing, item)
        if parameters.get("classification"):
            raise RequestError(thing, "is asked for as a classification", fix="ask for 'decision'")
        outputs[name] = flag(thing, parameters, "binary_data", default=binary)
    return outputs
