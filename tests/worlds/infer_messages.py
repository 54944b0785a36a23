"""Requests for payments in every form of the Open Inference Protocol, and the tensors of replies."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from plugins.grpc.tests.rig import GrpcReply
from skewless_grpc.messages import message_class
from skewless_oip.datatypes import DATATYPES
from skewless_oip.tensors import binary_data
from tests.worlds.trained import FIRST_CARD, NOW

FIELDS = {"card_id": "INT64", "shop_id": "BYTES", "amount": "FP64", "paid_at": "INT64"}
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
Input = tuple[str, str, tuple[int, ...], npt.NDArray[Any]]  # name, datatype, shape as sent, elements


def payments(n: int = 1) -> list[Input]:
    columns: dict[str, list[Any]] = {
        "card_id": [FIRST_CARD + i for i in range(n)],
        "shop_id": [b"shop-07"] * n,
        "amount": [12.5 + i for i in range(n)],
        "paid_at": [NOW] * n,
    }
    return [(name, kind, (n,), np.array(columns[name], dtype=DATATYPES[kind].numpy)) for name, kind in FIELDS.items()]


def raw_message(inputs: list[Input], outputs: list[str] = [], **parameters: int) -> Any:  # noqa: ANN401, B006 - a message
    message = message_class("ModelInferRequest")(model_name="fraud")
    for name, kind, shape, array in inputs:
        message.inputs.add(name=name, datatype=kind, shape=shape)
        message.raw_input_contents.append(binary_data(DATATYPES[kind], array))
    for name in outputs:
        message.outputs.add(name=name)
    for name, value in parameters.items():
        message.parameters[name].int64_param = value
    return message


def typed_message(inputs: list[Input], outputs: list[str], **parameters: int) -> Any:  # noqa: ANN401 - a message
    message = raw_message(inputs, outputs, **parameters)
    del message.raw_input_contents[:]
    for item, (_, kind, _, array) in zip(message.inputs, inputs, strict=True):
        getattr(item.contents, CONTENTS[kind]).extend(array.tolist())
    return message


def http_bodies(inputs: list[Input], outputs: list[str], **parameters: int) -> tuple[bytes, bytes, int]:
    """Return the body in JSON, the body with binary tensors, and the length of its JSON."""

    def head(items: list[dict[str, Any]]) -> bytes:
        body = {"inputs": items, "outputs": [{"name": name} for name in outputs], "parameters": parameters}
        if not outputs:
            del body["outputs"]
        return json.dumps(body | {"parameters": parameters | {"binary_data_output": True}}).encode()

    heads = [{"name": name, "datatype": kind, "shape": list(shape)} for name, kind, shape, _ in inputs]
    tails = [binary_data(DATATYPES[kind], array) for _, kind, _, array in inputs]
    texts = [[x.decode() for x in a.tolist()] if kind == "BYTES" else a.tolist() for _, kind, _, a in inputs]
    plain = head([item | {"data": data} for item, data in zip(heads, texts, strict=True)])
    sizes = [{"parameters": {"binary_data_size": len(tail)}} for tail in tails]
    binary = head([item | size for item, size in zip(heads, sizes, strict=True)])
    return plain, binary + b"".join(tails), len(binary)


def tensors_of_http(body: bytes, length: int | None) -> dict[str, tuple[list[int], bytes]]:
    """Return shape and data of each output."""
    assert length is not None
    tensors, at = {}, length
    for output in json.loads(body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        tensors[output["name"]] = output["shape"], body[at : at + size]
        at += size
    return tensors


def tensors_of_grpc(reply: GrpcReply) -> dict[str, tuple[list[int], bytes]]:
    message = message_class("ModelInferResponse").FromString(reply.message)
    pairs = zip(message.outputs, message.raw_output_contents, strict=True)
    return {output.name: (list(output.shape), raw) for output, raw in pairs}
