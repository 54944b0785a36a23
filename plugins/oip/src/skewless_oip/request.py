"""Parsing of inference requests: JSON, with optional binary tensors after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from skewless.contract.errors import RequestError
from skewless_oip.datatypes import find_datatype
from skewless_oip.tensors import BinaryTensor, JsonTensor

Tensor = JsonTensor | BinaryTensor
_BODY = "request body"
_INPUTS_FIX = 'send "inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}]'
MAX_DIMENSIONS = 8
_NO_PARAMETERS: Mapping[str, Any] = {}


@dataclass(kw_only=True, slots=True)
class InferRequest:
    """A parsed inference request.

    Args:
        id: returned in the reply; None: the request has no id.
        parameters: of the request.
        inputs: by name.
        outputs: requested outputs, and for each whether to send it as binary data; empty: the default outputs.
        binary: whether outputs are binary by default.
    """

    id: str | None
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, bool]
    binary: bool


def parse_request(body: bytes, json_length: int | None = None) -> InferRequest:
    """Return the request in a body.

    NaN, Infinity and -Infinity are accepted: JSON does not have them, but clients send them.

    >>> body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [7]}]}'
    >>> parse_request(body).inputs["x"].values()
    [7]

    Args:
        json_length: length of the JSON (Inference-Header-Content-Length), after which binary data follows; None: all.

    Raises:
        RequestError: the body does not follow the protocol.
    """
    if json_length is None:
        data, remainder = _parse_object(body), memoryview(b"")
    elif json_length > len(body):
        raise RequestError(
            _BODY, "is truncated", value=len(body), fix=f"send as many bytes as the header says: {json_length}"
        )
    else:
        view = memoryview(body)
        data, remainder = _parse_object(bytes(view[:json_length])), view[json_length:]
    name = data.get("id")
    if name is not None and type(name) is not str:
        raise RequestError("request field 'id'", "is not a string", value=name, fix="send a string")
    parameters = read_parameters("request", data)
    binary = read_flag("request", parameters, "binary_data_output", default=False)
    outputs = data.get("outputs")
    return InferRequest(
        id=name,
        parameters=parameters,
        inputs=_parse_inputs(data, remainder),
        outputs={} if outputs is None else parse_outputs(outputs, binary=binary),
        binary=binary,
    )


def parse_json(body: bytes) -> object:
    """Return the value of JSON, also with NaN and infinities; orjson can serialize all other values again.

    Raises:
        RequestError: the body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Only such a body pays for Python's slower parser, which accepts these words.
        if b"NaN" in body or b"Infinity" in body:
            return _parse_lenient(body)
        raise RequestError(_BODY, f"is not JSON: {error}", fix="send valid JSON") from None


def read_parameters(thing: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a request, an input or an output; without parameters an empty object.

    Raises:
        RequestError: the parameters are not an object.
    """
    parameters = data.get("parameters")
    if parameters is None:
        return _NO_PARAMETERS
    if type(parameters) is not dict:
        raise RequestError(f"{thing} parameters", "are not an object", value=parameters, fix="send an object")
    if "shared_memory_region" in parameters:
        raise RequestError(thing, "is in shared memory, which is not supported", fix="send or request the data itself")
    return parameters


def read_flag(thing: str, parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """Return a boolean parameter.

    Raises:
        RequestError: the value is not a boolean.
    """
    value = parameters.get(name)
    if value is None:
        return default
    if type(value) is not bool:
        raise RequestError(f"{thing} parameter {name!r}", "is not a boolean", value=value, fix="send true or false")
    return value


def _parse_object(body: bytes) -> dict[str, Any]:
    data = parse_json(body)
    if type(data) is not dict:
        raise RequestError(_BODY, "is not a JSON object", fix=_INPUTS_FIX)
    return data


def _parse_lenient(body: bytes) -> object:
    try:
        data: object = json.loads(body.decode())
        orjson.dumps(data)  # rejects what only Python's parser accepts: lone surrogates, huge integers, deep nesting
    except RecursionError:
        raise RequestError(_BODY, "is nested too deeply", fix="send flat lists") from None
    except (ValueError, TypeError) as error:
        raise RequestError(_BODY, f"is not JSON: {error}", fix="send valid JSON") from None
    return data


def add_input(inputs: dict[str, Tensor], tensor: Tensor) -> None:
    """Add a tensor to the inputs of a request.

    Raises:
        RequestError: there is an input of its name.
    """
    if tensor.name in inputs:
        raise RequestError(f"input {tensor.name!r}", "is duplicate", fix="send each input once")
    inputs[tensor.name] = tensor


def no_inputs_error() -> RequestError:
    """Return the error of a request without inputs."""
    return RequestError(_BODY, "has no inputs", fix=_INPUTS_FIX)


def _parse_inputs(data: Mapping[str, Any], remainder: memoryview) -> dict[str, Tensor]:
    items = data.get("inputs")
    if type(items) is not list or not items:
        raise no_inputs_error()
    inputs: dict[str, Tensor] = {}
    for item in items:
        tensor, remainder = _parse_tensor(item, remainder)
        add_input(inputs, tensor)
    if remainder:
        raise RequestError(
            _BODY,
            "has bytes after its last tensor",
            value=len(remainder),
            fix="send binary_data_size with every binary tensor",
        )
    return inputs


def _parse_tensor(item: Any, remainder: memoryview) -> tuple[Tensor, memoryview]:  # noqa: ANN401 - of a request
    name = item.get("name") if type(item) is dict else None
    if type(name) is not str:
        raise RequestError("request field 'inputs'", "has an input without a name", fix=_INPUTS_FIX)
    kind = find_datatype(name, item.get("datatype"))
    shape, data = parse_shape(name, item.get("shape")), item.get("data")
    size = read_parameters(f"input {name!r}", item).get("binary_data_size") if item.get("parameters") else None
    if size is None and type(data) is list:
        return JsonTensor.of(name, kind, shape, data), remainder
    if size is None or data is not None:
        raise RequestError(f"input {name!r}", "has no list of data", fix='send either "data": [...] or binary data')
    part, remainder = _split_data(f"input {name!r}", remainder, size)
    return BinaryTensor.of(name, kind, shape, part), remainder


def parse_shape(name: str, shape: Any) -> tuple[int, ...]:  # noqa: ANN401 - of a request
    """Return the shape of an input.

    Raises:
        RequestError: it is not a list of 1 to 8 lengths of 1 or more.
    """
    if type(shape) is list and len(shape) <= MAX_DIMENSIONS:
        for length in shape:
            if type(length) is not int or length < 1:
                break
        else:
            return tuple(shape)
    raise RequestError(
        f"input {name!r}",
        "has no shape with lengths of 1 or more",
        value=shape,
        fix='send "shape": [rows] or [rows, columns]',
    )


def _split_data(thing: str, remainder: memoryview, size: Any) -> tuple[memoryview, memoryview]:  # noqa: ANN401 - of a request
    if type(size) is not int or size < 0:
        raise RequestError(
            f"{thing} parameter 'binary_data_size'",
            "is not a length",
            value=size,
            fix="send the number of bytes",
        )
    if size > len(remainder):
        raise RequestError(
            thing,
            f"is truncated: has {len(remainder)} of its {size} bytes",
            fix="send the length of the JSON as Inference-Header-Content-Length, then the data of all tensors",
        )
    return remainder[:size], remainder[size:]


def parse_outputs(items: Any, *, binary: bool) -> dict[str, bool]:  # noqa: ANN401 - of a request
    """Return the requested outputs, and for each whether to send it as binary data.

    Args:
        items: objects with ``name`` and, if present, ``parameters``; not checked yet.
        binary: for outputs that do not say.

    Raises:
        RequestError: they are not such a list, or an output is requested twice or as a classification.
    """
    outputs: dict[str, bool] = {}
    for item in items if type(items) is list else [None]:
        if type(item) is not dict or type(item.get("name")) is not str:
            raise RequestError(
                "request field 'outputs'", "is not a list of names", fix='send "outputs": [{"name": ...}]'
            )
        name: str = item["name"]
        thing = f"output {name!r}"
        if name in outputs:
            raise RequestError(thing, "is requested twice", fix="request it once")
        parameters = read_parameters(thing, item)
        if parameters.get("classification"):
            raise RequestError(thing, "is requested as a classification", fix="request 'decision'")
        outputs[name] = read_flag(thing, parameters, "binary_data", default=binary)
    return outputs
