"""Conversion of scores to the requested output tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.errors import RequestError
from skewless.contract.status import Status
from skewless.serving.oip.datatypes import Datatype
from skewless.serving.oip.request import InferRequest
from skewless.serving.oip.signature import Signature
from skewless.serving.oip.tensors import binary_data, json_data
from skewless.serving.prediction.routing import MergedSlices
from skewless.serving.prediction.scored_batch import ScoredSlice

_STATUS = np.array([status.name.encode() for status in Status], dtype=object)


def requested_outputs(signature: Signature, request: InferRequest) -> Mapping[str, bool]:
    """Return the requested outputs, and for each whether it is binary.

    Raises:
        RequestError: the model does not have such an output.
    """
    if not request.outputs:
        return dict.fromkeys(signature.default_outputs, request.binary)
    for name in request.outputs:
        if name not in signature.outputs:
            raise RequestError(f"output {name!r}", "is unknown", fix=f"request one of {', '.join(signature.outputs)}")
    return request.outputs


def build_outputs(
    signature: Signature, result: ScoredSlice | MergedSlices, requested: Mapping[str, bool]
) -> list[ReplyTensor]:
    """Return the tensors of a reply, in the requested order."""
    return [
        ReplyTensor(name, signature.outputs[name].datatype, _array(name, result), binary)
        for name, binary in requested.items()
    ]


def is_wide(name: str) -> bool:
    """Return whether an output has one column per feature or view, in which versions may differ."""
    return name.startswith("feature_") or name == "contributions"


def _array(name: str, result: ScoredSlice | MergedSlices) -> npt.NDArray[Any]:
    """Return an output array; several parts are merged in the order of the request's rows."""
    if not isinstance(result, MergedSlices):
        return _ARRAYS[name](result)
    parts = [_ARRAYS[name](part) for part in result.parts]
    merged = np.empty((result.n, *parts[0].shape[1:]), dtype=parts[0].dtype)
    for part, rows in zip(parts, result.rows, strict=True):
        merged[list(rows)] = part
    return merged


def _decisions(scored_slice: ScoredSlice) -> npt.NDArray[Any]:
    values = scored_slice.decisions
    if values is None:
        raise TypeError(scored_slice)  # the signature of a model without decisions does not have this output
    return _bytes(values)


def _out_of_bounds(scored_slice: ScoredSlice) -> npt.NDArray[Any]:
    return _bytes([",".join(names) for names in scored_slice.out_of_bounds or [[]] * scored_slice.n])


def _contributions(scored_slice: ScoredSlice) -> npt.NDArray[np.float64]:
    values = scored_slice.contributions
    if values is None:
        raise TypeError(scored_slice)  # the scoring request asks for them with this output
    return values


def _bytes(texts: Sequence[str | None]) -> npt.NDArray[Any]:
    array = np.empty(len(texts), dtype=object)
    array[:] = [None if text is None else text.encode() for text in texts]
    return array


_ARRAYS: Mapping[str, Callable[[ScoredSlice], npt.NDArray[Any]]] = {
    "score": lambda scored_slice: scored_slice.scores,
    "decision": _decisions,
    "version": lambda scored_slice: _bytes([scored_slice.model.version] * scored_slice.n),
    "prediction_id": lambda scored_slice: _bytes(scored_slice.ids),
    "feature_values": lambda scored_slice: scored_slice.matrix,
    "feature_age_s": lambda scored_slice: scored_slice.ages_s,
    "feature_status": lambda scored_slice: _STATUS[scored_slice.status],
    "feature_stale": lambda scored_slice: scored_slice.stale,
    "contributions": _contributions,
    "out_of_bounds": _out_of_bounds,
}


class ReplyTensor(NamedTuple):
    """A tensor of a reply.

    Args:
        array: of the datatype and shape; BYTES: objects, each bytes or None.
        binary: whether to send it as binary data.
    """

    name: str
    datatype: Datatype
    array: npt.NDArray[Any]
    binary: bool


def encode_reply(head: bytes, outputs: Sequence[ReplyTensor]) -> tuple[bytes, int | None]:
    """Return the body of a reply, and the length of its JSON if binary data follows.

    Args:
        head: the JSON up to the outputs, ``{"model_name": ..., ``, with its last comma.

    Raises:
        RequestError: an output with bytes that are not UTF-8 is requested as JSON.
    """
    texts, tail = [], []
    for name, datatype, array, binary in outputs:
        if binary:
            data = binary_data(datatype, array)
            tail.append(data)
            texts.append(_tensor_head(name, datatype, array) + b'"parameters":{"binary_data_size":%d}}' % len(data))
        else:
            texts.append(b'%b"data":%b}' % (_tensor_head(name, datatype, array), json_data(datatype, array)))
    text = b'%b"outputs":[%b]}' % (head, b",".join(texts))
    return (b"".join((text, *tail)), len(text)) if tail else (text, None)


def _tensor_head(name: str, datatype: Datatype, array: npt.NDArray[Any]) -> bytes:
    shape = ",".join(map(str, array.shape))
    return f'{{"name":"{name}","datatype":"{datatype.name}","shape":[{shape}],'.encode()
