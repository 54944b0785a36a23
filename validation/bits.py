"""Compares served and recomputed vectors and scores to the last bit, and names the cause of a difference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infra.predictions.reader import Logged
from infra.served_model import ServedModel
from skewless.status import BoolArray
from skewless.vector import Matrix
from validation.findings import Cause, Findings
from validation.rebuilt import Rebuilt

_Floats = npt.NDArray[np.float64]


def compare_bits(model: ServedModel, logged: Logged, rebuilt: Rebuilt, findings: Findings) -> None:
    """Find every prediction whose vector or score has other bits than the recomputed one."""
    _compare_plans(model, logged, findings)
    different = ~equal_bits(logged.vectors, rebuilt.vectors.matrix)
    wrong_score = ~_equal_scores(logged, rebuilt)
    for i in np.flatnonzero(different.any(axis=1)):
        for column in np.flatnonzero(different[i]):
            cause = _value_cause(model, int(column), score_fits=not wrong_score[i])
            detail = f"{logged.vectors[i, column]!r} logged, {rebuilt.vectors.matrix[i, column]!r} recomputed"
            findings.add(logged.ids[i], cause, model.assembler.labels[column], detail)
    alone = np.flatnonzero(wrong_score & ~different.any(axis=1))
    if alone.size:
        _name_scores(model, logged, rebuilt, alone, findings)


def equal_bits(left: _Floats, right: _Floats) -> BoolArray:
    """Return where two float64 arrays have the same bits; every NaN is the same missing value.

    >>> equal_bits(np.array([0.0, np.nan]), np.array([-0.0, np.nan])).tolist()
    [False, True]
    """
    same = np.ascontiguousarray(left).view(np.int64) == np.ascontiguousarray(right).view(np.int64)
    return np.asarray(same | (np.isnan(left) & np.isnan(right)), dtype=np.bool_)


def _equal_scores(logged: Logged, rebuilt: Rebuilt) -> BoolArray:
    exact = equal_bits(logged.scores, rebuilt.scores)
    # A runtime that is not bit-equal was accepted within a tolerance, and is replayed within it.
    near = np.abs(logged.scores - rebuilt.scores) <= logged.tolerance
    return np.asarray(exact | (near & (logged.tolerance > 0)), dtype=np.bool_)


def _value_cause(model: ServedModel, column: int, *, score_fits: bool) -> Cause:
    if score_fits:
        return Cause.LOGGED_VALUE
    transforms = {item.name for item in model.plan.transforms}
    return Cause.TRANSFORM if model.assembler.refs[column].group in transforms else Cause.VALUE


def _name_scores(
    model: ServedModel, logged: Logged, rebuilt: Rebuilt, rows: npt.NDArray[np.intp], findings: Findings
) -> None:
    narrow: Matrix = rebuilt.vectors.matrix[rows].astype(np.float32).astype(np.float64)
    through_float32 = equal_bits(logged.scores[rows], model.runtime.score(np.ascontiguousarray(narrow)))
    for i, rounded in zip(rows, through_float32, strict=True):
        cause = Cause.FLOAT32_SCORE if rounded else Cause.SCORE
        detail = f"{logged.scores[i]!r} logged, {rebuilt.scores[i]!r} recomputed"
        findings.add(logged.ids[i], cause, model.name, detail)


def _compare_plans(model: ServedModel, logged: Logged, findings: Findings) -> None:
    current = [item.hash for item in model.plan.transforms]
    for i, name in enumerate(logged.ids):
        if logged.plan_hash[i] != model.plan.hash:
            findings.add(name, Cause.PLAN, "plan", f"{logged.plan_hash[i]} logged, {model.plan.hash} in the package")
        if list(logged.transform_hashes[i]) != current:
            findings.add(name, Cause.TRANSFORM, "transform", "another source text than the package's")
