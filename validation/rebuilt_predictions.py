"""Rebuilds logged predictions from the log rows that they name (SEMANTICS 7.2), and compares them bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array, typed_array
from skewless.contract.arrow_types import arrow_type
from skewless.contract.errors import StoreError
from skewless.contract.plan import View
from skewless.contract.request import ParsedRows, parse_rows
from skewless.contract.rows import ViewRead, empty_read
from skewless.contract.status import BoolArray, Status
from skewless.contract.vector import Matrix, Vectors
from skewless.contract.windows.tiles import AppliedPositions
from skewless.contract.windows.view import WindowView
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.offline.window_positions import applied_matrix
from skewless.infra.records.predictions.reader import LoggedPredictions
from skewless.infra.records.predictions.record import largest_output
from skewless.validation.replay_report import Cause, Findings


@dataclass(frozen=True, kw_only=True)
class RecomputedScores:
    """The recomputed vectors and scores of a batch of predictions.

    Args:
        matrix: float64, shape ``(n, n_features)``.
        scores: float64, shape ``(n,)`` or ``(n, k)``.
    """

    matrix: Matrix
    scores: Matrix


@dataclass(frozen=True, kw_only=True)
class RebuiltPredictions(RecomputedScores):
    """Recomputed predictions whose features were read from views.

    Args:
        ask: the parsed inputs.
        reads: per view, the named log rows.
    """

    ask: ParsedRows
    reads: Mapping[str, ViewRead]


def rebuild(
    model: ServedModel, views: OfflineViews, logged: LoggedPredictions, findings: Findings
) -> RebuiltPredictions:
    """Return the predictions recomputed from the log; record log rows that differ from their logged versions."""
    rows = [json.loads(text) for text in logged.inputs]
    # The server's own parser and the package's plan, so that keys and fields are rounded in the same way.
    ask = parse_rows(model.plan, rows, len(rows))
    reads = {view.name: _read_named_rows(view, views, logged, ask, findings) for view in model.plan.views}
    reads |= {view.name: _rebuild_windows(view, views, logged, ask, findings) for view in model.plan.windows}
    for view in model.plan.all_views:
        hashes = logged.reads[view.name].hashes
        for i in np.flatnonzero(np.array(hashes) != view.hash).tolist():
            findings.add(logged.ids[i], Cause.PLAN, view.name, f"read under view hash {hashes[i]}")
    vectors = model.assembler.assemble(logged.t, reads, ask.fields)
    _check_status(logged, vectors, findings)
    return RebuiltPredictions(ask=ask, reads=reads, matrix=vectors.matrix, scores=model.runtime.score(vectors.matrix))


def rescore(model: ServedModel, logged: LoggedPredictions) -> RecomputedScores:
    """Return predictions whose vectors callers had sent, scored again.

    Raises:
        StoreError: an input is not a vector of the model.
    """
    rows = [json.loads(text) for text in logged.inputs]
    if any(not isinstance(row, list) or len(row) != model.runtime.n_features for row in rows):
        raise StoreError("prediction log", "has inputs that are not vectors of the model", fix="restore the file")
    sent = np.array(rows, dtype=np.float64)
    # JSON has neither NaN nor infinities: null replaces them, and the logged vector has the value.
    is_not_finite = np.isnan(sent) & ~np.isfinite(logged.vectors)
    matrix = np.where(is_not_finite, logged.vectors, sent)
    return RecomputedScores(matrix=matrix, scores=model.runtime.score(matrix))


def key_rows(view: View | WindowView, ask: ParsedRows) -> list[tuple[Any, ...]]:
    """Return the key of each prediction for one view."""
    return list(zip(*(ask.keys[key.name] for key in view.keys), strict=True))


def entity_table(view: View | WindowView, ask: ParsedRows, t: Sequence[int] | Any) -> pa.Table:  # noqa: ANN401 - numpy int64 too
    """Return the entity rows of the predictions for a point-in-time join at times ``t``."""
    columns = {key.name: typed_array(ask.keys[key.name], arrow_type(key.dtype)) for key in view.keys}
    return pa.table({**columns, "__t": int64_array(np.asarray(t, np.int64))})


def _read_named_rows(
    view: View, views: OfflineViews, logged: LoggedPredictions, ask: ParsedRows, findings: Findings
) -> ViewRead:
    logged_read = logged.reads[view.name]
    available = logged_read.status != Status.UNAVAILABLE
    positions = np.where(available, logged_read.versions.seq, -1)
    read, table = views.read_positions(view, positions), views.read_keys(view, positions)
    keys = list(zip(*(table[key.name].to_pylist() for key in view.keys), strict=True))
    left, right = logged_read.versions, read.versions
    is_same = (left.seq == right.seq) & (left.event_ts == right.event_ts) & (left.created_ts == right.created_ts)
    is_same = (is_same & (left.run_id == right.run_id)) | (positions < 0)
    has_key = np.fromiter(
        (a == b for a, b in zip(keys, key_rows(view, ask), strict=True)), dtype=np.bool_, count=len(keys)
    )
    for i in np.flatnonzero(~(is_same & (has_key | (positions < 0)))).tolist():
        version = f"({right.event_ts[i]}, {right.created_ts[i]}, {right.seq[i]})"
        detail = f"log position {positions[i]} has {keys[i]}, {version}"
        findings.add(logged.ids[i], Cause.LOG_ALTERED, view.name, detail)
    return read


def _rebuild_windows(
    view: WindowView, views: OfflineViews, logged: LoggedPredictions, ask: ParsedRows, findings: Findings
) -> ViewRead:
    """Return the read of a windowed view, recomputed from the applied rows."""
    logged_read = logged.reads[view.name]
    available = logged_read.status != Status.UNAVAILABLE
    if not available.any():
        return empty_read(view, len(available), available=False)
    parts = views.log_partitions(view)
    slots = logged_read.applied or AppliedPositions.empty()
    applied, known = applied_matrix(slots, parts, len(available))
    for i in np.unique(slots.entity[~known]).tolist():
        findings.add(logged.ids[i], Cause.LOG_ALTERED, view.name, "its log partition is missing")
    read = views.join.read_applied(view, parts, entity_table(view, ask, logged.t), applied)
    # The log could give these values, but serving did not have them: the model got null.
    return replace(read, unavailable=~available)


def _check_status(logged: LoggedPredictions, vectors: Vectors, findings: Findings) -> None:
    for view, status in vectors.status.items():
        served = logged.reads[view].status
        # Whether the store could be read does not follow from the log.
        for i in np.flatnonzero((served != status) & (served != Status.UNAVAILABLE)).tolist():
            detail = f"{Status(served[i]).name} served, {Status(status[i]).name} follows from the log"
            findings.add(logged.ids[i], Cause.STATUS, view, detail)


_Floats = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.intp]


def compare_bits(
    model: ServedModel, logged: LoggedPredictions, recomputed: RecomputedScores, findings: Findings
) -> None:
    """Record every prediction whose vector or score has other bits than the recomputed one."""
    _compare_plans(model, logged, findings)
    different = ~equal_bits(logged.vectors, recomputed.matrix)
    wrong_score = ~_equal_scores(logged, recomputed)
    for i in np.flatnonzero(different.any(axis=1)).tolist():
        for column in np.flatnonzero(different[i]).tolist():
            cause = _value_cause(model, logged, different[i], column)
            detail = f"{logged.vectors[i, column]!r} logged, {recomputed.matrix[i, column]!r} recomputed"
            findings.add(logged.ids[i], cause, model.assembler.labels[column], detail)
    equal_vectors = ~different.any(axis=1)
    # Another vector explains another score, so the score counts only where the vectors are equal.
    score_rows = np.flatnonzero(wrong_score & equal_vectors)
    if score_rows.size:
        _add_score_findings(model, logged, recomputed, score_rows, findings)


def equal_bits(left: _Floats, right: _Floats) -> BoolArray:
    """Return where two float64 arrays have equal bits; all NaNs are equal, as the missing value.

    >>> equal_bits(np.array([0.0, np.nan]), np.array([-0.0, np.nan])).tolist()
    [False, True]
    """
    same = np.ascontiguousarray(left).view(np.int64) == np.ascontiguousarray(right).view(np.int64)
    return np.asarray(same | (np.isnan(left) & np.isnan(right)), dtype=np.bool_)


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
