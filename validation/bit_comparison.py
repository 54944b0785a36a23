"""Compares served and recomputed vectors and scores to the last bit, and names the cause of a difference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.vector import Matrix
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.checksums import checksums, checksums_v1
from skewless.infra.predictions.reader import LoggedPredictions
from skewless.infra.predictions.record import largest_output
from skewless.validation.rebuilt_predictions import RecomputedScores
from skewless.validation.replay_report import Cause, Findings

_Floats = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.intp]


def compare_bits(model: ServedModel, logged: LoggedPredictions, again: RecomputedScores, findings: Findings) -> None:
    """Find every prediction whose vector or score has other bits than the recomputed one."""
    _compare_plans(model, logged, findings)
    different = ~equal_bits(logged.vectors, again.matrix)
    wrong_score = ~_equal_scores(logged, again)
    altered = _checksums(logged) != logged.checksums
    for i in np.flatnonzero(different.any(axis=1)).tolist():
        for column in np.flatnonzero(different[i]).tolist():
            cause = Cause.LOGGED_VALUE if altered[i] else _value_cause(model, logged, different[i], column)
            detail = f"{logged.vectors[i, column]!r} logged, {again.matrix[i, column]!r} recomputed"
            findings.add(logged.ids[i], cause, model.assembler.labels[column], detail)
    alone = ~different.any(axis=1)
    for i in np.flatnonzero(altered & alone).tolist():
        detail = f"{logged.scores[i].tolist()} logged, {again.scores[i].tolist()} recomputed"
        findings.add(logged.ids[i], Cause.LOGGED_VALUE, "score" if wrong_score[i] else "checksum", detail)
    odd = np.flatnonzero(wrong_score & alone & ~altered)
    if odd.size:
        _name_scores(model, logged, again, odd, findings)


def equal_bits(left: _Floats, right: _Floats) -> BoolArray:
    """Return where two float64 arrays have the same bits; every NaN is the same missing value.

    >>> equal_bits(np.array([0.0, np.nan]), np.array([-0.0, np.nan])).tolist()
    [False, True]
    """
    same = np.ascontiguousarray(left).view(np.int64) == np.ascontiguousarray(right).view(np.int64)
    return np.asarray(same | (np.isnan(left) & np.isnan(right)), dtype=np.bool_)


def _checksums(logged: LoggedPredictions) -> Int64Array:
    """Return what the checksums of logged rows must be; each format has its own."""
    outputs = () if logged.scores.ndim == 1 else (logged.scores,)
    sums = checksums(logged.vectors, logged.score, *outputs)
    first = np.flatnonzero(logged.formats == 1)
    if len(first):
        sums[first] = checksums_v1(logged.vectors[first], logged.score[first])
    return sums


def _equal_scores(logged: LoggedPredictions, again: RecomputedScores) -> BoolArray:
    if logged.scores.shape != again.scores.shape:
        return np.zeros(len(logged.ids), dtype=np.bool_)
    outputs = np.column_stack([logged.score, logged.scores])
    expected = np.column_stack([largest_output(again.scores), again.scores])
    tolerance = logged.tolerance[:, None]
    # A runtime that is not bit-equal was accepted within a tolerance, and is replayed within it.
    near = (np.abs(outputs - expected) <= tolerance) & (tolerance > 0)
    return np.asarray((equal_bits(outputs, expected) | near).all(axis=1), dtype=np.bool_)


def _same_outputs(left: _Floats, right: _Floats) -> BoolArray:
    if left.shape != right.shape:
        return np.zeros(len(left), dtype=np.bool_)
    return np.asarray(equal_bits(left, right).reshape(len(left), -1).all(axis=1), dtype=np.bool_)


def _value_cause(model: ServedModel, logged: LoggedPredictions, different: BoolArray, column: int) -> Cause:
    """Return who is to blame for a column: a transform is not, where one of its own inputs differs."""
    refs = model.assembler.refs
    for transform in model.plan.transforms if logged.source == "entities" else ():
        if transform.name == refs[column].group:
            inputs = [i for i, ref in enumerate(refs) if ref in transform.inputs]
            return Cause.VALUE if different[inputs].any() else Cause.TRANSFORM
    return Cause.VALUE


def _name_scores(
    model: ServedModel, logged: LoggedPredictions, again: RecomputedScores, rows: _Rows, findings: Findings
) -> None:
    narrow: Matrix = again.matrix[rows].astype(np.float32).astype(np.float64)
    rounded_scores = model.runtime.score(np.ascontiguousarray(narrow))
    through_float32 = _same_outputs(logged.scores[rows], rounded_scores)
    for i, rounded in zip(rows, through_float32, strict=True):
        cause = Cause.FLOAT32_SCORE if rounded else Cause.SCORE
        detail = f"{logged.scores[i].tolist()} logged, {again.scores[i].tolist()} recomputed"
        findings.add(logged.ids[i], cause, model.name, detail)


def _compare_plans(model: ServedModel, logged: LoggedPredictions, findings: Findings) -> None:
    current = {item.name: item.hash for item in model.plan.transforms}
    for i, name in enumerate(logged.ids):
        if logged.plan_hash[i] != model.plan.hash:
            findings.add(name, Cause.PLAN, "plan", f"{logged.plan_hash[i]} logged, {model.plan.hash} in the package")
        served = logged.transform_hashes[i]
        if list(served) != list(current.values()):
            other = [key for key, value in current.items() if value not in served]
            findings.add(name, Cause.TRANSFORM, ", ".join(other) or "transform", "another source than the package's")
