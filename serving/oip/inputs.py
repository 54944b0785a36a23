"""From the tensors of a request to a question: entities with their request fields, or whole feature vectors."""

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
from skewless.serving.prediction.scoring_request import Options, ScoringRequest

_EXACT = 2**53  # integers up to here are float64 too


def question_of(
    model: ServedModel, signature: Signature, inputs: Mapping[str, Tensor], options: Options, most: int
) -> ScoringRequest:
    """Return the question that tensors ask.

    Args:
        most: rows that a request may have.

    Raises:
        RequestError: a tensor is missing, not known, of another datatype or shape, or holds what its field cannot.
    """
    if inputs.keys() == signature.columns.keys():
        return _entities(model, signature.columns, inputs, options, most)
    accepted = model.package.spec.accept_float32
    narrow = any(_is_narrow(tensor.datatype) for tensor in inputs.values())
    if inputs.keys() == {FEATURES}:
        matrix = _matrix(inputs[FEATURES], len(signature.labels), most, accepted=accepted)
        return _vectors(model, matrix, options, narrow=narrow)
    if inputs.keys() == set(signature.labels):
        return _vectors(model, _beside(signature.labels, inputs, most, accepted=accepted), options, narrow=narrow)
    raise _unfit(signature, inputs)


def _entities(
    model: ServedModel, columns: Mapping[str, Column], inputs: Mapping[str, Tensor], options: Options, most: int
) -> ScoringRequest:
    n = _rows(inputs)
    check_count(n, most)
    accepted = model.package.spec.accept_float32
    values = {name: _field(column, inputs[name], accepted=accepted) for name, column in columns.items()}
    narrow = any(_narrows(column, inputs[name]) for name, column in columns.items())
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return ScoringRequest(
        model=model, n=n, rows=rows, columns=model.parser.parse_rows(rows), options=options, narrow=narrow
    )


def _vectors(model: ServedModel, matrix: Matrix, options: Options, *, narrow: bool) -> ScoringRequest:
    rows = matrix.tolist()
    return ScoringRequest(model=model, n=len(matrix), rows=rows, vectors=matrix, options=options, narrow=narrow)


def _field(column: Column, tensor: Tensor, *, accepted: bool) -> list[Any]:
    if _narrows(column, tensor) and not accepted:
        raise _narrow(tensor)
    return tensor.values()


def _narrows(column: Column, tensor: Tensor) -> bool:
    return column.dtype is DType.FLOAT64 and _is_narrow(tensor.datatype)


def _matrix(tensor: Tensor, n_features: int, most: int, *, accepted: bool) -> Matrix:
    if tensor.datatype is not FP64 and not (accepted and _is_narrow(tensor.datatype)):
        raise _narrow(tensor)
    if len(tensor.shape) != 2 or tensor.shape[1] != n_features:  # noqa: PLR2004 - rows and columns
        raise RequestError(
            f"input {tensor.name!r}",
            f"is not of shape [rows, {n_features}]",
            value=list(tensor.shape),
            fix="send one number for each feature of the model, in its order",
        )
    check_count(tensor.shape[0], most)
    return tensor.array().astype(np.float64, copy=False)


def _beside(labels: Sequence[str], inputs: Mapping[str, Tensor], most: int, *, accepted: bool) -> Matrix:
    n = _rows(inputs)
    check_count(n, most)
    matrix = np.empty((n, len(labels)), dtype=np.float64)
    for i, label in enumerate(labels):
        matrix[:, i] = _numbers(inputs[label], accepted=accepted).reshape(n)
    return matrix


def _numbers(tensor: Tensor, *, accepted: bool) -> npt.NDArray[Any]:
    if tensor.datatype.kind == "bytes" or (_is_narrow(tensor.datatype) and not accepted):
        raise _narrow(tensor)
    array = tensor.array()
    if tensor.datatype.kind == "integer" and (int(array.max()) > _EXACT or int(array.min()) < -_EXACT):
        raise RequestError(f"input {tensor.name!r}", "holds an integer beyond 2^53", fix="send FP64")
    return array


def _rows(inputs: Mapping[str, Tensor]) -> int:
    n = 0
    for name, tensor in inputs.items():
        shape = tensor.shape
        if len(shape) != 1 and (len(shape) != 2 or shape[1] != 1):  # noqa: PLR2004 - rows and columns
            raise RequestError(
                f"input {name!r}", "is not of shape [rows] or [rows, 1]", value=list(shape), fix="send it so"
            )
        if n not in {0, shape[0]}:
            lengths = {each.name: each.shape[:1] for each in inputs.values()}
            raise RequestError(
                "the inputs", "have not one number of rows", value=lengths, fix="send one value for each row"
            )
        n = shape[0]
    return n


def _is_narrow(datatype: Datatype) -> bool:
    return datatype.kind == "float" and datatype is not FP64


def _narrow(tensor: Tensor) -> RequestError:
    """Return why a datatype is refused: float32 moves values across the thresholds of trees (SEMANTICS 6.2)."""
    return RequestError(
        f"input {tensor.name!r}",
        "is a float64 to the model, which this datatype does not hold",
        value=tensor.datatype.name,
        fix="send FP64",
    )


def _unfit(signature: Signature, inputs: Mapping[str, Tensor]) -> RequestError:
    fix = f"send one tensor for each of {', '.join(signature.columns)}; or the whole vectors as {FEATURES!r}"
    for name in inputs:
        if name not in signature.columns and name not in signature.labels and name != FEATURES:
            return RequestError(f"input {name!r}", "is unknown", fix=fix)
    lacking = [name for name in signature.columns if name not in inputs]
    if len(lacking) == len(signature.columns):
        return RequestError("the inputs", "are neither entities nor whole vectors", fix=fix)
    if lacking:
        return RequestError(f"input {lacking[0]!r}", "is missing", fix=fix)
    return RequestError("the inputs", "are entities and features at once", fix=fix)
