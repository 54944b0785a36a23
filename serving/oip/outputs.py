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
    signature: Signature, answer: ScoredSlice | MergedSlices, asked: Mapping[str, bool]
) -> list[ReplyTensor]:
    """Return the tensors of a reply, in the order in which they were asked for."""
    return [
        ReplyTensor(name, signature.outputs[name].datatype, _array(name, answer), binary)
        for name, binary in asked.items()
    ]


def is_wide(name: str) -> bool:
    """Say whether an output has a column for each feature or view: two versions may differ in them."""
    return name.startswith("feature_") or name == "contributions"


def _array(name: str, answer: ScoredSlice | MergedSlices) -> npt.NDArray[Any]:
    """Return an output; of several parts all rows in the order of the request."""
    if not isinstance(answer, MergedSlices):
        return _ARRAYS[name](answer)
    parts = [_ARRAYS[name](part) for part in answer.parts]
    whole = np.empty((answer.n, *parts[0].shape[1:]), dtype=parts[0].dtype)
    for part, rows in zip(parts, answer.rows, strict=True):
        whole[list(rows)] = part
    return whole


def _decisions(answer: ScoredSlice) -> npt.NDArray[Any]:
    found = answer.decisions
    if found is None:
        raise TypeError(answer)  # the signature of such a model has no such output
    return _bytes(found)


def _out_of_bounds(answer: ScoredSlice) -> npt.NDArray[Any]:
    return _bytes([",".join(names) for names in answer.out_of_bounds or [[]] * answer.n])


def _contributions(answer: ScoredSlice) -> npt.NDArray[np.float64]:
    found = answer.contributions
    if found is None:
        raise TypeError(answer)  # they are asked for with the question
    return found


def _bytes(texts: Sequence[str | None]) -> npt.NDArray[Any]:
    array = np.empty(len(texts), dtype=object)
    array[:] = [None if text is None else text.encode() for text in texts]
    return array


_ARRAYS: Mapping[str, Callable[[ScoredSlice], npt.NDArray[Any]]] = {
    "score": lambda answer: answer.scores,
    "decision": _decisions,
    "version": lambda answer: _bytes([answer.model.version] * answer.n),
    "prediction_id": lambda answer: _bytes(answer.ids),
    "feature_values": lambda answer: answer.matrix,
    "feature_age_s": lambda answer: answer.ages_s,
    "feature_status": lambda answer: _STATUS[answer.status],
    "feature_stale": lambda answer: answer.stale,
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
