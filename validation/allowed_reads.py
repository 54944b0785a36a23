"""Checks that a prediction's reads are possible, given the times at which rows were written (SEMANTICS 2.7).

Also finds predictions that cannot be proven, because rows that they may have read were erased (SEMANTICS 7.2).

A read that began at ``read_start`` (with a feature cache: the time at which the oldest used state was read) and ended
at ``read_end`` may return, for each key, any row between::

    oldest: the winner among rows of runs that ended before read_start - skew
    latest: the winner among rows of runs that began by read_end + skew (times have microseconds:
            if two are equal, either may have been first)

    The read of a windowed view names, for each entity and log partition, the last applied position of its state. Two
    conditions hold::

        complete     no event of the entity is missing from a batch that was applied before read_start - skew
        not future   no event of a batch that was accepted after read_end + skew is included

``skew`` is how far the clocks of two machines may differ: the offset of the server's clock to that of the online store,
plus the largest offset of the publishers or stream workers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.plan import View
from skewless.contract.request import ParsedRows
from skewless.contract.rows import NO_TIME, Versions
from skewless.contract.status import BoolArray, Int64Array, Status
from skewless.contract.windows.tiles import AppliedPositions
from skewless.contract.windows.view import WindowView
from skewless.infra.log.log_columns import ERASED, EVENT, REJECT, SEQ
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.reads.offline.log_parts import AppliedBatches
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.offline.window_positions import applied_matrix, find_touched_rows
from skewless.infra.records.predictions.reader import LoggedPredictions
from skewless.validation.rebuilt_predictions import RebuiltPredictions, entity_table, key_rows
from skewless.validation.replay_report import Cause, Findings, ReplayReport

_Ranks = npt.NDArray[np.int64]
_Key = tuple[Any, ...]


def check_versions(
    report: ReplayReport,
    view: View,
    views: OfflineViews,
    logged: LoggedPredictions,
    rebuilt: RebuiltPredictions,
    findings: Findings,
) -> None:
    """Record reads that are impossible for a correct store; count reads during which a run changed the key."""
    logged_read = logged.reads[view.name]
    available = logged_read.status != Status.UNAVAILABLE
    # Server and publisher each measured their clock's offset from the store's; the errors can add up.
    skew = logged.skew_us + views.ledger.times().skew_us.max(initial=0)
    # One microsecond less: a run that ended in the same microsecond may have ended after the read began.
    before, after = (
        entity_table(view, rebuilt.ask, at_us) for at_us in (logged.read_start - skew - 1, logged.read_end + skew)
    )
    oldest = _ranks(views.read_view(view, before, "finished").versions)
    latest = _ranks(views.read_view(view, after, "started").versions)
    ranks = _ranks(logged_read.versions)
    too_old, too_new = available & _less(ranks, oldest), available & _less(latest, ranks)
    if too_old.any():
        _add_stale_findings(view, rebuilt, logged, np.flatnonzero(too_old), findings)
    for i in np.flatnonzero(too_new).tolist():
        detail = f"read {tuple(ranks[i].tolist())}, the latest possible is {tuple(latest[i].tolist())}"
        findings.add(logged.ids[i], Cause.UNKNOWN_VERSION, view.name, detail)
    # A run was writing this key: the old and the new row are both legitimate.
    changed = available & _less(oldest, latest)
    saw_new = changed & _less(oldest, ranks)
    report.changing += int(changed.sum())
    report.saw_new += int(saw_new.sum())
    report.saw_old += int((changed & ~saw_new).sum())


def _ranks(versions: Versions) -> _Ranks:
    # A view has one partition, so the rank is the triple of SEMANTICS 2.1; a missing row ranks lowest.
    ranks = np.stack([versions.event_ts, versions.created_ts, versions.seq], axis=1)
    ranks[versions.seq < 0] = (NO_TIME, NO_TIME, -1)
    return ranks


def _less(left: _Ranks, right: _Ranks) -> BoolArray:
    less, equal = np.zeros(len(left), dtype=np.bool_), np.ones(len(left), dtype=np.bool_)
    for column in range(left.shape[1]):
        less |= equal & (left[:, column] < right[:, column])
        equal &= left[:, column] == right[:, column]
    return less


def _add_stale_findings(
    view: View, rebuilt: RebuiltPredictions, logged: LoggedPredictions, rows: npt.NDArray[np.intp], findings: Findings
) -> None:
    """Record reads of old rows: a lost write if the row was never read before, otherwise a stale write."""
    ranks, keys = _ranks(logged.reads[view.name].versions), key_rows(view, rebuilt.ask)
    best = _best_by_end({keys[i] for i in rows}, keys, logged.read_end, ranks)
    for i in rows:
        rank = tuple(ranks[i].tolist())
        # Only reads that had ended before this read began can prove that a newer row was online.
        ends, earlier_ranks = best[keys[i]]
        index = bisect_left(ends, int(logged.read_start[i])) - 1
        stale = rank[-1] >= 0 and index >= 0 and earlier_ranks[index] > rank
        cause = Cause.STALE_WRITE if stale else Cause.LOST_WRITE
        findings.add(logged.ids[i], cause, view.name, f"key {keys[i]} read {rank if rank[-1] >= 0 else 'nothing'}")


def _best_by_end(
    selected: set[_Key], keys: Sequence[_Key], read_end: Int64Array, read_ranks: _Ranks
) -> dict[_Key, tuple[list[int], list[tuple[int, ...]]]]:
    """Return per key the end times of its reads, in order, and for each the latest row read by then."""
    best: dict[_Key, tuple[list[int], list[tuple[int, ...]]]] = {key: ([], []) for key in selected}
    for i in np.argsort(read_end, kind="stable"):
        if keys[i] in selected:
            # Only reads that had ended before this read began can prove that a later row was online.
            ends, ranks = best[keys[i]]
            rank = tuple(read_ranks[i].tolist())
            ends.append(int(read_end[i]))
            ranks.append(max(rank, ranks[-1]) if ranks else rank)
    return best


def check_states(
    view: WindowView, views: OfflineViews, logged: LoggedPredictions, ask: ParsedRows, findings: Findings
) -> None:
    """Record reads of states that are impossible for a correct store."""
    logged_read = logged.reads[view.name]
    present = np.flatnonzero(logged_read.status == Status.PRESENT)
    if not len(present):
        return
    skew = logged.skew_us + views.clock_skews.largest(view.source)
    parts = views.log_partitions(view)
    # Positions in partitions that the log does not have are findings of the rebuild.
    applied, _ = applied_matrix(logged_read.applied or AppliedPositions.empty(), parts, len(logged.ids))
    entities = entity_table(view, ask, logged.t)
    for number, part in enumerate(parts):
        batches = AppliedBatches.read(views.connection, part)
        certain = batches.last_surely_applied(logged.read_start - skew - 1)
        possible = batches.last_possibly_applied(logged.read_end + skew)
        # A decision has read exactly the rows before its event (SEMANTICS 9.2), whatever had been applied by then.
        for i, (partition, seq) in enumerate(logged.events):
            if partition == part.partition:
                certain[i] = possible[i] = seq - 1
        position = applied[:, number]
        for i in present[(position > possible)[present]].tolist():
            detail = f"position {position[i]} of {part.partition} was read before it was accepted"
            findings.add(logged.ids[i], Cause.UNKNOWN_VERSION, view.name, detail)
        # The position of a state moves only with events of its entity. So a smaller position is a loss only if such an
        # event lies between.
        incomplete_view_error = present[(position < certain)[present]]
        rows = entities.take(int64_array(incomplete_view_error))
        for i in incomplete_view_error[
            find_touched_rows(
                views.connection, view, part, rows, position[incomplete_view_error], certain[incomplete_view_error]
            )
        ].tolist():
            detail = f"position {position[i]} of {part.partition} was read, {certain[i]} had been applied"
            findings.add(logged.ids[i], Cause.LOST_WRITE, view.name, detail)


def find_erased_reads(model: ServedModel, views: OfflineViews, logged: LoggedPredictions) -> BoolArray:
    """Return which predictions may have read an erased row, shape ``(n,)``."""
    erased = np.zeros(len(logged.ids), dtype=np.bool_)
    for view in model.plan.views:
        seq, _ = _read_erased(views, views.log(view).files())
        erased |= np.isin(logged.reads[view.name].versions.seq, seq)
    for window in model.plan.windows:
        erased |= _has_read_event(window, views, logged)
    return erased


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
