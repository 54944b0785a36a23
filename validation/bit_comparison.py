"""Compares served and recomputed vectors and scores bit for bit, and finds the cause of a difference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.vector import Matrix
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.reader import LoggedPredictions
from skewless.infra.predictions.record import checksums, checksums_v1, largest_output
from skewless.validation.rebuilt_predictions import RecomputedScores
from skewless.validation.replay_report import Cause, Findings

_Floats = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.intp]


def compare_bits(
    model: ServedModel, logged: LoggedPredictions, recomputed: RecomputedScores, findings: Findings
) -> None:
    """Record every prediction whose vector or score has other bits than the recomputed one."""
    _compare_plans(model, logged, findings)
    different = ~equal_bits(logged.vectors, recomputed.matrix)
    wrong_score = ~_equal_scores(logged, recomputed)
    altered = _expected_checksums(logged) != logged.checksums
    for i in np.flatnonzero(different.any(axis=1)).tolist():
        for column in np.flatnonzero(different[i]).tolist():
            # The checksum comes first: a record that was altered later proves nothing about serving.
            cause = Cause.LOGGED_VALUE if altered[i] else _value_cause(model, logged, different[i], column)
            detail = f"{logged.vectors[i, column]!r} logged, {recomputed.matrix[i, column]!r} recomputed"
            findings.add(logged.ids[i], cause, model.assembler.labels[column], detail)
    equal_vectors = ~different.any(axis=1)
    for i in np.flatnonzero(altered & equal_vectors).tolist():
        detail = f"{logged.scores[i].tolist()} logged, {recomputed.scores[i].tolist()} recomputed"
        findings.add(logged.ids[i], Cause.LOGGED_VALUE, "score" if wrong_score[i] else "checksum", detail)
    # Another vector explains another score, so the score counts only where the vectors are equal.
    score_rows = np.flatnonzero(wrong_score & equal_vectors & ~altered)
    if score_rows.size:
        _add_score_findings(model, logged, recomputed, score_rows, findings)


def equal_bits(left: _Floats, right: _Floats) -> BoolArray:
    """Return where two float64 arrays have equal bits; all NaNs are equal, as the missing value.

    >>> equal_bits(np.array([0.0, np.nan]), np.array([-0.0, np.nan])).tolist()
    [False, True]
    """
    same = np.ascontiguousarray(left).view(np.int64) == np.ascontiguousarray(right).view(np.int64)
    return np.asarray(same | (np.isnan(left) & np.isnan(right)), dtype=np.bool_)


def _expected_checksums(logged: LoggedPredictions) -> Int64Array:
    """Return the correct checksums of logged rows, by the format of their file."""
    outputs = () if logged.scores.ndim == 1 else (logged.scores,)
    sums = checksums(logged.vectors, logged.score, *outputs)
    first_format = np.flatnonzero(logged.formats == 1)
    if len(first_format):
        sums[first_format] = checksums_v1(logged.vectors[first_format], logged.score[first_format])
    return sums


def _equal_scores(logged: LoggedPredictions, recomputed: RecomputedScores) -> BoolArray:
    if logged.scores.shape != recomputed.scores.shape:
        return np.zeros(len(logged.ids), dtype=np.bool_)
    outputs = np.column_stack([logged.score, logged.scores])
    expected = np.column_stack([largest_output(recomputed.scores), recomputed.scores])
    tolerance = logged.tolerance[:, None]
    # A runtime that is certified with a tolerance is also replayed with it.
    is_within_tolerance = (np.abs(outputs - expected) <= tolerance) & (tolerance > 0)
    return np.asarray((equal_bits(outputs, expected) | is_within_tolerance).all(axis=1), dtype=np.bool_)


def _same_outputs(left: _Floats, right: _Floats) -> BoolArray:
    if left.shape != right.shape:
        return np.zeros(len(left), dtype=np.bool_)
    return np.asarray(equal_bits(left, right).reshape(len(left), -1).all(axis=1), dtype=np.bool_)


def _value_cause(model: ServedModel, logged: LoggedPredictions, different: BoolArray, column: int) -> Cause:
    """Return the cause of a different column; a transform is not the cause if one of its inputs differs."""
    refs = model.assembler.refs
    # No transform ran on a vector that the caller sent.
    for transform in model.plan.transforms if logged.source == "entities" else ():
        if transform.name == refs[column].group:
            inputs = [i for i, ref in enumerate(refs) if ref in transform.inputs]
            return Cause.VALUE if different[inputs].any() else Cause.TRANSFORM
    return Cause.VALUE


def _add_score_findings(
    model: ServedModel, logged: LoggedPredictions, recomputed: RecomputedScores, rows: _Rows, findings: Findings
) -> None:
    # A common fault of runtimes; naming it saves the search for it.
    rounded_matrix: Matrix = recomputed.matrix[rows].astype(np.float32).astype(np.float64)
    rounded_scores = model.runtime.score(np.ascontiguousarray(rounded_matrix))
    through_float32 = _same_outputs(logged.scores[rows], rounded_scores)
    for i, rounded in zip(rows, through_float32, strict=True):
        cause = Cause.FLOAT32_SCORE if rounded else Cause.SCORE
        detail = f"{logged.scores[i].tolist()} logged, {recomputed.scores[i].tolist()} recomputed"
        findings.add(logged.ids[i], cause, model.name, detail)


def _compare_plans(model: ServedModel, logged: LoggedPredictions, findings: Findings) -> None:
    current = {item.name: item.hash for item in model.plan.transforms}
    for i, name in enumerate(logged.ids):
        if logged.plan_hash[i] != model.plan.hash:
            findings.add(name, Cause.PLAN, "plan", f"{logged.plan_hash[i]} logged, {model.plan.hash} in the package")
        served = logged.transform_hashes[i]
        if list(served) != list(current.values()):
            other = [key for key, value in current.items() if value not in served]
            findings.add(name, Cause.TRANSFORM, ", ".join(other) or "transform", "differs from the package's source")
