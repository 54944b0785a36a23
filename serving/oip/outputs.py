"""From an answer to the tensors that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.errors import RequestError
from skewless.contract.status import Status
from skewless.serving.oip.binary_tensor import binary_data
from skewless.serving.oip.datatypes import Datatype
from skewless.serving.oip.json_tensor import json_data
from skewless.serving.oip.request import InferRequest
from skewless.serving.oip.signature import Signature
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.split_request import MergedSlices

_STATUS = np.array([status.name.encode() for status in Status], dtype=object)


def asked_outputs(signature: Signature, request: InferRequest) -> Mapping[str, bool]:
    """Return per output that is wanted whether it goes as binary data.

    Raises:
        RequestError: the model has no such output.
    """
    if not request.outputs:
        return dict.fromkeys(signature.usual, request.binary)
    for name in request.outputs:
        if name not in signature.outputs:
            raise RequestError(f"output {name!r}", "is unknown", fix=f"ask for {', '.join(signature.outputs)}")
    return request.outputs


def outputs_of(
    signature: Signature, run_handler: ScoredSlice | MergedSlices, asked: Mapping[str, bool]
) -> list[ReplyTensor]:
    """Return the tensors of a reply, in the order in which they were asked for."""
    return [
        ReplyTensor(name, signature.outputs[name].datatype, _array(name, run_handler), binary)
        for name, binary in asked.items()
    ]


def is_wide(name: str) -> bool:
    """Say whether an output has a column for each feature or view: two versions may differ in them."""
    return name.startswith("feature_") or name == "contributions"


def _array(name: str, run_handler: ScoredSlice | MergedSlices) -> npt.NDArray[Any]:
    """Return an output; of several parts all rows in the order of the request."""
    if not isinstance(run_handler, MergedSlices):
        return _ARRAYS[name](run_handler)
    parts = [_ARRAYS[name](part) for part in run_handler.parts]
    whole = np.empty((run_handler.n, *parts[0].shape[1:]), dtype=parts[0].dtype)
    for part, rows in zip(parts, run_handler.rows, strict=True):
        whole[list(rows)] = part
    return whole


def _decisions(run_handler: ScoredSlice) -> npt.NDArray[Any]:
    found = run_handler.decisions
    if found is None:
        raise TypeError(run_handler)  # the signature of such a model has no such output
    return _bytes(found)


def _out_of_bounds(run_handler: ScoredSlice) -> npt.NDArray[Any]:
    return _bytes([",".join(names) for names in run_handler.out_of_bounds or [[]] * run_handler.n])


def _contributions(run_handler: ScoredSlice) -> npt.NDArray[np.float64]:
    found = run_handler.contributions
    if found is None:
        raise TypeError(run_handler)  # they are asked for with the question
    return found


def _bytes(texts: Sequence[str | None]) -> npt.NDArray[Any]:
    array = np.empty(len(texts), dtype=object)
    array[:] = [None if text is None else text.encode() for text in texts]
    return array


_ARRAYS: Mapping[str, Callable[[ScoredSlice], npt.NDArray[Any]]] = {
    "score": lambda run_handler: run_handler.scores,
    "decision": _decisions,
    "version": lambda run_handler: _bytes([run_handler.model.version] * run_handler.n),
    "prediction_id": lambda run_handler: _bytes(run_handler.ids),
    "feature_values": lambda run_handler: run_handler.matrix,
    "feature_age_s": lambda run_handler: run_handler.ages_s,
    "feature_status": lambda run_handler: _STATUS[run_handler.status],
    "feature_stale": lambda run_handler: run_handler.stale,
    "contributions": _contributions,
    "out_of_bounds": _out_of_bounds,
}


class ReplyTensor(NamedTuple):
    """A tensor of a reply.

    Args:
        array: of the datatype and in the tensor's shape; BYTES: objects, bytes or None.
        binary: whether it goes as binary data.
    """

    name: str
    datatype: Datatype
    array: npt.NDArray[Any]
    binary: bool


def encode_reply(head: bytes, outputs: Sequence[ReplyTensor]) -> tuple[bytes, int | None]:
    """Return the body of a reply, and how much of it is JSON where binary data follows.

    Args:
        head: the JSON up to the outputs: ``{"model_name": ..., ``, with its last comma.

    Raises:
        RequestError: bytes that are not UTF-8 are asked for as JSON.
    """
    texts, tail = [], []
    for name, datatype, array, binary in outputs:
        if binary:
            data = binary_data(datatype, array)
            tail.append(data)
            texts.append(_described(name, datatype, array) + b'"parameters":{"binary_data_size":%d}}' % len(data))
        else:
            texts.append(b'%b"data":%b}' % (_described(name, datatype, array), json_data(datatype, array)))
    text = b'%b"outputs":[%b]}' % (head, b",".join(texts))
    return (b"".join((text, *tail)), len(text)) if tail else (text, None)


def _described(name: str, datatype: Datatype, array: npt.NDArray[Any]) -> bytes:
    shape = ",".join(map(str, array.shape))
    return f'{{"name":"{name}","datatype":"{datatype.name}","shape":[{shape}],'.encode()
