"""Finds predictions that cannot be proven, because rows that they may have read were erased (SEMANTICS 7.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skewless.contract.plan import View
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.tiles import AppliedPositions
from skewless.contract.windows.view import WindowView
from skewless.infra.log.log_columns import ERASED, EVENT, REJECT, SEQ
from skewless.infra.offline.views import OfflineViews
from skewless.infra.offline.window_positions import applied_matrix
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.reader import LoggedPredictions


def find_erased_reads(model: ServedModel, views: OfflineViews, logged: LoggedPredictions) -> BoolArray:
    """Return which predictions may have read an erased row, shape ``(n,)``."""
    erased = np.zeros(len(logged.ids), dtype=np.bool_)
    for view in model.plan.views:
        erased |= _has_read_row(view, views, logged)
    for window in model.plan.windows:
        erased |= _has_read_event(window, views, logged)
    return erased


def _has_read_row(view: View, views: OfflineViews, logged: LoggedPredictions) -> BoolArray:
    """Return which reads returned a row that is erased."""
    seq, _ = _read_erased(views, views.log(view).files())
    return np.asarray(np.isin(logged.reads[view.name].versions.seq, seq), dtype=np.bool_)


def _has_read_event(view: WindowView, views: OfflineViews, logged: LoggedPredictions) -> BoolArray:
    """Return for which reads an erased event was applied whose time is in the reach of the windows."""
    found, parts = np.zeros(len(logged.ids), dtype=np.bool_), views.log_partitions(view)
    applied, _ = applied_matrix(logged.reads[view.name].applied or AppliedPositions.empty(), parts, len(logged.ids))
    # A window begins at a multiple of its hop.
    reach_us = max(item.window_us + item.hop_us for item in view.aggregates)
    for number, part in enumerate(parts):
        seq, ts = _read_erased(views, part.files)
        first, end = np.searchsorted(ts, logged.t - reach_us), np.searchsorted(ts, logged.t, side="right")
        for i in np.flatnonzero(first < end).tolist():
            found[i] |= seq[first[i] : end[i]].min() <= applied[i, number]
    return found


def _read_erased(views: OfflineViews, files: Sequence[str]) -> tuple[Int64Array, Int64Array]:
    """Return position and event time of the erased rows of log files, in order of their times."""
    if not files:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    query = (
        f"SELECT {SEQ}, {EVENT} FROM read_parquet(?, union_by_name = true)"
        f" WHERE {REJECT} = '{ERASED}' AND {EVENT} IS NOT NULL ORDER BY {EVENT}"
    )
    rows = views.connection.sql(query, params=[list(files)]).fetchnumpy()
    return np.asarray(rows[SEQ], dtype=np.int64), np.asarray(rows[EVENT], dtype=np.int64)
