"""Conversion of request tensors to a scoring request, and of scores to the requested output tensors.

A request has entity keys with request features, or feature vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.request import check_count
from skewless.contract.status import Status
from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.prediction.routing import MergedSlices, Options, ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless_oip.datatypes import FP64, Datatype
from skewless_oip.request import InferRequest, Tensor
from skewless_oip.signature import FEATURES, Signature
from skewless_oip.tensors import binary_data, json_data

_MAX_EXACT = 2**53  # largest integer up to which float64 represents all integers
_STATUS = np.array([status.name.encode() for status in Status], dtype=object)


def build_request(
    model: ServedModel, signature: Signature, inputs: Mapping[str, Tensor], options: Options, max_rows: int
) -> ScoringRequest:
    """Return the scoring request of the tensors.

    Args:
        max_rows: maximum number of rows.

    Raises:
        RequestError: a tensor is missing, unknown, of another datatype or shape, or has an invalid element.
    """
    if inputs.keys() == signature.columns.keys():
        return _entities(model, signature.columns, inputs, options, max_rows)
    if inputs.keys() == {FEATURES}:
        matrix = _matrix(inputs[FEATURES], len(signature.labels), max_rows)
    elif inputs.keys() == set(signature.labels):
        matrix = _stack_columns(signature.labels, inputs, max_rows)
    else:
        raise _mismatch_error(signature, inputs)
    narrow, rows = _find_narrow(model, inputs.values()), matrix.tolist()
    return ScoringRequest(model=model, n=len(matrix), rows=rows, vectors=matrix, options=options, narrow=narrow)


def _entities(
    model: ServedModel, columns: Mapping[str, Column], inputs: Mapping[str, Tensor], options: Options, max_rows: int
) -> ScoringRequest:
    n = _count_rows(inputs)
    check_count(n, max_rows)
    narrow = _find_narrow(model, [inputs[name] for name, column in columns.items() if column.dtype is DType.FLOAT64])
    values = {name: inputs[name].values() for name in columns}
    # As JSON rows: one parser decides what is valid, and the log has one form for both protocols.
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return ScoringRequest(
        model=model, n=n, rows=rows, columns=model.parser.parse_rows(rows), options=options, narrow=narrow
    )


def _find_narrow(model: ServedModel, tensors: Iterable[Tensor]) -> bool:
    """Return whether a tensor of float64 inputs has a narrower float type; an error if the model rejects them."""
    narrow = [tensor for tensor in tensors if tensor.datatype.kind == "float" and tensor.datatype is not FP64]
    if narrow and not model.package.spec.accept_float32:
        raise _narrow_error(narrow[0])
    return bool(narrow)


def _matrix(tensor: Tensor, n_features: int, max_rows: int) -> Matrix:
    if tensor.datatype.kind != "float":
        raise _narrow_error(tensor)
    if len(tensor.shape) != 2 or tensor.shape[1] != n_features:  # noqa: PLR2004 - rows and columns
        raise RequestError(
            f"input {tensor.name!r}",
            f"is not of shape [rows, {n_features}]",
            value=list(tensor.shape),
            fix="send one number for each feature of the model, in the model's order",
        )
    check_count(tensor.shape[0], max_rows)
    return tensor.array().astype(np.float64, copy=False)


def _stack_columns(labels: Sequence[str], inputs: Mapping[str, Tensor], max_rows: int) -> Matrix:
    n = _count_rows(inputs)
    check_count(n, max_rows)
    matrix = np.empty((n, len(labels)), dtype=np.float64)
    for i, label in enumerate(labels):
        matrix[:, i] = _numbers(inputs[label]).reshape(n)
    return matrix


def _numbers(tensor: Tensor) -> npt.NDArray[Any]:
    if tensor.datatype.kind == "bytes":
        raise _narrow_error(tensor)
    array = tensor.array()
    if tensor.datatype.kind == "integer" and (int(array.max()) > _MAX_EXACT or int(array.min()) < -_MAX_EXACT):
        raise RequestError(f"input {tensor.name!r}", "has an integer beyond 2^53", fix="send FP64")
    return array


def _count_rows(inputs: Mapping[str, Tensor]) -> int:
    n = 0
    for name, tensor in inputs.items():
        shape = tensor.shape
        if len(shape) != 1 and (len(shape) != 2 or shape[1] != 1):  # noqa: PLR2004 - rows and columns
            raise RequestError(
                f"input {name!r}", "is not of shape [rows] or [rows, 1]", value=list(shape), fix="change the shape"
            )
        if n not in {0, shape[0]}:
            lengths = {other.name: other.shape[:1] for other in inputs.values()}
            raise RequestError(
                "the inputs", "have different numbers of rows", value=lengths, fix="send one value for each row"
            )
        n = shape[0]
    return n


def _narrow_error(tensor: Tensor) -> RequestError:
    """Return the error for a too narrow float type: float32 moves values across tree thresholds (SEMANTICS 6.2)."""
    return RequestError(
        f"input {tensor.name!r}",
        "needs float64, which this datatype cannot represent",
        value=tensor.datatype.name,
        fix="send FP64",
    )


def _mismatch_error(signature: Signature, inputs: Mapping[str, Tensor]) -> RequestError:
    fix = f"send one tensor for each of {', '.join(signature.columns)}; or complete vectors as {FEATURES!r}"
    for name in inputs:
        if name not in signature.columns and name not in signature.labels and name != FEATURES:
            return RequestError(f"input {name!r}", "is unknown", fix=fix)
    missing = [name for name in signature.columns if name not in inputs]
    if len(missing) == len(signature.columns):
        return RequestError("the inputs", "are neither entity keys nor complete vectors", fix=fix)
    if missing:
        return RequestError(f"input {missing[0]!r}", "is missing", fix=fix)
    return RequestError("the inputs", "are entity keys and features at once", fix=fix)


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


def check_vector_outputs(model: ServedModel, names: Iterable[str]) -> None:
    """Check the outputs that are requested for vectors, by name or by default.

    Raises:
        RequestError: the policy reads keys or request fields, so it cannot decide about vectors.
    """
    if model.policy is not None and model.policy.needs_inputs:
        for name in names:
            if name in {"decision", "reasons"}:
                raise RequestError(
                    f"output {name!r}",
                    "cannot be given for vectors: the policy of the model reads keys or request fields",
                    fix="send the inputs of the metadata, or request other outputs by name, for example 'score'",
                )


def build_outputs(
    signature: Signature, result: ScoredSlice | MergedSlices, requested: Mapping[str, bool]
) -> list[ReplyTensor]:
    """Return the tensors of a reply, in the requested order."""
    return [
        ReplyTensor(name, signature.outputs[name].datatype, _array(name, result), binary)
        for name, binary in requested.items()
    ]


def _array(name: str, result: ScoredSlice | MergedSlices) -> npt.NDArray[Any]:
    """Return an output array; several parts are merged in the order of the request's rows."""
    if not isinstance(result, MergedSlices):
        return _ARRAYS[name](result)
    parts = [_ARRAYS[name](part) for part in result.parts]
    merged = np.empty((result.n, *parts[0].shape[1:]), dtype=parts[0].dtype)
    for part, rows in zip(parts, result.rows, strict=True):
        merged[list(rows)] = part
    return merged


def _out_of_bounds(scored_slice: ScoredSlice) -> npt.NDArray[Any]:
    return _bytes([",".join(names) for names in scored_slice.out_of_bounds or [[]] * scored_slice.n])


def _bytes(texts: Sequence[str | None]) -> npt.NDArray[Any]:
    array = np.empty(len(texts), dtype=object)
    array[:] = [None if text is None else text.encode() for text in texts]
    return array


_ARRAYS: Mapping[str, Callable[[ScoredSlice], npt.NDArray[Any]]] = {
    "score": lambda scored_slice: scored_slice.scores,
    # Only the signature of a model with decisions has this output.
    "decision": lambda scored_slice: _bytes(scored_slice.decisions or ()),
    "reasons": lambda scored_slice: _bytes([" ".join(codes) for codes in scored_slice.reasons or ()]),
    "explored": lambda scored_slice: np.array(scored_slice.explored or [False] * scored_slice.n, dtype=np.bool_),
    "version": lambda scored_slice: _bytes([scored_slice.model.version] * scored_slice.n),
    "prediction_id": lambda scored_slice: _bytes(scored_slice.ids),
    "feature_values": lambda scored_slice: scored_slice.matrix,
    "feature_age_s": lambda scored_slice: scored_slice.ages_s,
    "feature_status": lambda scored_slice: _STATUS[scored_slice.status],
    "feature_stale": lambda scored_slice: scored_slice.stale,
    # The scoring request asks for them with this output.
    "contributions": lambda scored_slice: np.asarray(scored_slice.extra_values("contributions")),
    "leaves": lambda scored_slice: np.asarray(scored_slice.extra_values("leaves")),
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
