"""Rebuilds logged predictions from the log rows that they name (SEMANTICS 7.2, served against log)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.errors import StoreError
from skewless.contract.plan import View
from skewless.contract.request import ParsedRows, parse_rows
from skewless.contract.rows import ViewRead, empty_read
from skewless.contract.status import BoolArray, Status
from skewless.contract.vector import Matrix, Vectors
from skewless.contract.windows.tiles import AppliedPositions
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.views import OfflineViews
from skewless.infra.offline.window_positions import applied_matrix
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.reader import LoggedPredictions, LoggedViewRead
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
    columns = {key.name: pa.array(ask.keys[key.name], arrow_type(key.dtype)) for key in view.keys}
    return pa.table({**columns, "__t": pa.array(t, pa.int64())})


def _read_named_rows(
    view: View, views: OfflineViews, logged: LoggedPredictions, ask: ParsedRows, findings: Findings
) -> ViewRead:
    logged_read = logged.reads[view.name]
    available = logged_read.status != Status.UNAVAILABLE
    positions = np.where(available, logged_read.versions.seq, -1)
    read, table = views.read_positions(view, positions), views.read_keys(view, positions)
    keys = list(zip(*(table[key.name].to_pylist() for key in view.keys), strict=True))
    is_same = _is_same_version(logged_read, read) | (positions < 0)
    has_key = np.fromiter(
        (a == b for a, b in zip(keys, key_rows(view, ask), strict=True)), dtype=np.bool_, count=len(keys)
    )
    for i in np.flatnonzero(~(is_same & (has_key | (positions < 0)))).tolist():
        detail = f"log position {positions[i]} has {keys[i]}, {_describe_version(read, i)}"
        findings.add(logged.ids[i], Cause.LOG_ALTERED, view.name, detail)
    for i in np.flatnonzero(np.array(logged_read.hashes) != view.hash).tolist():
        findings.add(logged.ids[i], Cause.PLAN, view.name, f"read under view hash {logged_read.hashes[i]}")
    return read


def _rebuild_windows(
    view: WindowView, views: OfflineViews, logged: LoggedPredictions, ask: ParsedRows, findings: Findings
) -> ViewRead:
    """Return the read of a windowed view, recomputed from the applied rows."""
    logged_read = logged.reads[view.name]
    available = logged_read.status != Status.UNAVAILABLE
    for i in np.flatnonzero(np.array(logged_read.hashes) != view.hash).tolist():
        findings.add(logged.ids[i], Cause.PLAN, view.name, f"read under view hash {logged_read.hashes[i]}")
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


def _is_same_version(logged_read: LoggedViewRead, read: ViewRead) -> BoolArray:
    left, right = logged_read.versions, read.versions
    is_same = (left.seq == right.seq) & (left.event_ts == right.event_ts) & (left.created_ts == right.created_ts)
    return np.asarray(is_same & (left.run_id == right.run_id), dtype=np.bool_)


def _describe_version(read: ViewRead, i: int) -> str:
    versions = read.versions
    return f"({versions.event_ts[i]}, {versions.created_ts[i]}, {versions.seq[i]})"


def _check_status(logged: LoggedPredictions, vectors: Vectors, findings: Findings) -> None:
    for view, status in vectors.status.items():
        served = logged.reads[view].status
        # Whether the store could be read does not follow from the log.
        for i in np.flatnonzero((served != status) & (served != Status.UNAVAILABLE)).tolist():
            detail = f"{Status(served[i]).name} served, {Status(status[i]).name} follows from the log"
            findings.add(logged.ids[i], Cause.STATUS, view, detail)
