"""Conversion of request tensors to a scoring request: entity keys with request features, or feature vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.request import check_count
from skewless.contract.vector import Matrix
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.oip.datatypes import FP64, Datatype
from skewless.serving.oip.request import Tensor
from skewless.serving.oip.signature import FEATURES, Signature
from skewless.serving.prediction.routing import Options, ScoringRequest

_MAX_EXACT = 2**53  # largest integer up to which float64 represents all integers


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
    accepted = model.package.spec.accept_float32
    narrow = any(_is_narrow(tensor.datatype) for tensor in inputs.values())
    if inputs.keys() == {FEATURES}:
        matrix = _matrix(inputs[FEATURES], len(signature.labels), max_rows, accepted=accepted)
        return _vectors(model, matrix, options, narrow=narrow)
    if inputs.keys() == set(signature.labels):
        return _vectors(
            model, _stack_columns(signature.labels, inputs, max_rows, accepted=accepted), options, narrow=narrow
        )
    raise _mismatch_error(signature, inputs)


def _entities(
    model: ServedModel, columns: Mapping[str, Column], inputs: Mapping[str, Tensor], options: Options, max_rows: int
) -> ScoringRequest:
    n = _count_rows(inputs)
    check_count(n, max_rows)
    accepted = model.package.spec.accept_float32
    values = {name: _field_values(column, inputs[name], accepted=accepted) for name, column in columns.items()}
    narrow = any(_narrows_column(column, inputs[name]) for name, column in columns.items())
    # As JSON rows: one parser decides what is valid, and the log has one form for both protocols.
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return ScoringRequest(
        model=model, n=n, rows=rows, columns=model.parser.parse_rows(rows), options=options, narrow=narrow
    )


def _vectors(model: ServedModel, matrix: Matrix, options: Options, *, narrow: bool) -> ScoringRequest:
    rows = matrix.tolist()
    return ScoringRequest(model=model, n=len(matrix), rows=rows, vectors=matrix, options=options, narrow=narrow)


def _field_values(column: Column, tensor: Tensor, *, accepted: bool) -> list[Any]:
    if _narrows_column(column, tensor) and not accepted:
        raise _narrow_error(tensor)
    return tensor.values()


def _narrows_column(column: Column, tensor: Tensor) -> bool:
    return column.dtype is DType.FLOAT64 and _is_narrow(tensor.datatype)


def _matrix(tensor: Tensor, n_features: int, max_rows: int, *, accepted: bool) -> Matrix:
    if tensor.datatype is not FP64 and not (accepted and _is_narrow(tensor.datatype)):
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


def _stack_columns(labels: Sequence[str], inputs: Mapping[str, Tensor], max_rows: int, *, accepted: bool) -> Matrix:
    n = _count_rows(inputs)
    check_count(n, max_rows)
    matrix = np.empty((n, len(labels)), dtype=np.float64)
    for i, label in enumerate(labels):
        matrix[:, i] = _numbers(inputs[label], accepted=accepted).reshape(n)
    return matrix


def _numbers(tensor: Tensor, *, accepted: bool) -> npt.NDArray[Any]:
    if tensor.datatype.kind == "bytes" or (_is_narrow(tensor.datatype) and not accepted):
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


def _is_narrow(datatype: Datatype) -> bool:
    return datatype.kind == "float" and datatype is not FP64


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
