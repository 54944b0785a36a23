"""``ModelInfer``: the message as a request of ``infer`` over HTTP, and the reply as a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from struct import Struct
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from skewless.contract.errors import RequestError
from skewless.serving.http.hot_routes import JSON, Exchange, Header
from skewless.serving.prediction.routing import Options
from skewless_grpc.calls import GrpcExchange
from skewless_grpc.messages import message_class
from skewless_oip.conversion import ReplyTensor
from skewless_oip.datatypes import BYTES, find_datatype
from skewless_oip.infer_route import InferRoute, InferTarget, PendingReply
from skewless_oip.request import (
    InferRequest,
    Tensor,
    add_input,
    no_inputs_error,
    parse_outputs,
    parse_shape,
)
from skewless_oip.request import read_parameters as parse_parameters
from skewless_oip.tensors import BinaryTensor, JsonTensor, binary_data

_Request, _Response = message_class("ModelInferRequest"), message_class("ModelInferResponse")
_LENGTH = Struct("<I")
# The field of `InferTensorContents` for a datatype; FP16 has none.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_PARAMETERS = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}


class GrpcInferRoute(InferRoute):
    """Handles ``ModelInfer``: the checks, errors, tensors and bits are those of HTTP."""

    route = "/inference.GRPCInferenceService/ModelInfer"

    def find_target(self, exchange: Exchange) -> InferTarget:
        """Return the model that the message names."""
        message = parse_message(_Request, exchange.body)
        return InferTarget(message.model_name, message.model_version or None, message)

    def read_request(self, exchange: Exchange, target: InferTarget) -> tuple[InferRequest, bytes]:  # noqa: ARG002
        """Return the request in the message; gRPC's core compresses."""
        return read_infer_message(target.message), b""

    def encode_reply(
        self,
        pending: PendingReply,  # noqa: ARG002 - of HTTP
        head: bytes,
        outputs: Sequence[ReplyTensor],
    ) -> tuple[bytes, Sequence[Header]]:
        """Return the serialized reply; its tensors are raw."""
        return encode_message(head, outputs), JSON

    def read_deadline(self, exchange: Exchange, options: Options) -> Options:
        """Return the options with the client's deadline, if it is earlier."""
        deadline = exchange.deadline if isinstance(exchange, GrpcExchange) else None
        if deadline is None or (options.deadline is not None and options.deadline <= deadline):
            return options
        return replace(options, deadline=deadline)


def parse_message(kind: Any, message: bytes) -> Any:  # noqa: ANN401 - protobuf has no types
    """Return a message of a class.

    Raises:
        RequestError: the bytes are not a message of this class.
    """
    try:
        return kind.FromString(message)
    except DecodeError:
        name = kind.DESCRIPTOR.name
        raise RequestError("the message", f"is not a {name}", fix="send a message of grpc_predict_v2.proto") from None


def read_infer_message(message: Any) -> InferRequest:  # noqa: ANN401 - protobuf has no types
    """Return the request in a ``ModelInferRequest``.

    Raises:
        RequestError: the message does not follow the protocol.
    """
    raw, items = message.raw_input_contents, message.inputs
    if not items:
        raise no_inputs_error()
    if raw and len(raw) != len(items):
        problem = f"has {len(raw)} tensors for {len(items)} inputs"
        raise RequestError("request field 'raw_input_contents'", problem, fix="send one for each input, in their order")
    parameters: Mapping[str, Any] = read_parameters("request", message.parameters) if message.parameters else {}
    inputs: dict[str, Tensor] = {}
    for i, item in enumerate(items):
        add_input(inputs, _read_input(item, raw[i] if raw else None))
    outputs = message.outputs and [
        {"name": output.name, "parameters": read_parameters(f"output {output.name!r}", output.parameters)}
        for output in message.outputs
    ]
    return InferRequest(
        id=message.id or None,
        parameters=parameters,
        inputs=inputs,
        outputs=parse_outputs(outputs, binary=True) if outputs else {},
        binary=True,
    )


def read_parameters(thing: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a request, an input or an output as JSON values; one without a value is None.

    Raises:
        RequestError: a parameter asks for shared memory.
    """
    values = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        values[name] = None if choice is None else getattr(parameter, choice)
    return parse_parameters(thing, {"parameters": values})


def _read_input(item: Any, raw: bytes | None) -> Tensor:  # noqa: ANN401 - protobuf has no types
    name = item.name
    datatype = find_datatype(name, item.datatype)
    shape = parse_shape(name, list(item.shape))
    if item.parameters:
        read_parameters(f"input {name!r}", item.parameters)
    if raw is not None and item.HasField("contents"):
        raise RequestError(f"input {name!r}", "has contents and raw contents", fix="send one of them")
    if raw is None and datatype is BYTES:
        parts = (part for element in item.contents.bytes_contents for part in (_LENGTH.pack(len(element)), element))
        raw = b"".join(parts)
    if raw is not None:
        return BinaryTensor.of(name, datatype, shape, memoryview(raw))
    field = _CONTENTS.get(datatype.name)
    if field is None:
        fix = "send raw_input_contents"
        raise RequestError(f"input {name!r}", "has no field for its contents", value=datatype.name, fix=fix)
    return JsonTensor.of(name, datatype, shape, list(getattr(item.contents, field)))


def encode_message(head: bytes, outputs: Sequence[ReplyTensor]) -> bytes:
    """Return a serialized ``ModelInferResponse``.

    Args:
        head: the JSON of a reply up to its outputs, with its last comma.
    """
    heads = [_encode_output(name, datatype.name, array.shape) for name, datatype, array, _ in outputs]
    raw = _Response(raw_output_contents=[binary_data(datatype, array) for _, datatype, array, _ in outputs])
    # Serialized parts of a message, one after the other, are the message.
    return b"".join((_encode_head(head), *heads, raw.SerializeToString()))


@lru_cache(maxsize=16)  # without an id, all replies of a batch have the same head
def _encode_head(head: bytes) -> bytes:
    fields = orjson.loads(head[:-1] + b"}")
    reply = _Response(
        model_name=fields["model_name"], model_version=fields.get("model_version", ""), id=fields.get("id", "")
    )
    for name, value in fields["parameters"].items():
        setattr(reply.parameters[name], _PARAMETERS[type(value)], value)
    encoded: bytes = reply.SerializeToString()
    return encoded


@lru_cache(maxsize=256)
def _encode_output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    reply = _Response()
    reply.outputs.add(name=name, datatype=datatype, shape=shape)
    encoded: bytes = reply.SerializeToString()
    return encoded
