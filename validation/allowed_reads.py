"""Whether what a prediction read may have been there (SEMANTICS 2.7).

A read that began at ``read_start`` (with a feature cache: when the oldest state used was read) and ended at
``read_end`` may find, for each key, any row between::

    oldest: the winner among rows of runs that ended before read_start - skew
    newest: the winner among rows of runs that began by read_end + skew (times are whole
            microseconds: of two equal ones either may have been first)

A windowed view names, for each entity and log partition, the last position that had been applied to the state which
was read. That lies between two lines::

    applied by then       no event of the entity in a batch whose applying had ended before read_start - skew is missing
    not from the future   no event in a batch that was taken after read_end + skew is there
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.plan import View
from skewless.contract.request import ParsedRows
from skewless.contract.rows import NO_TIME, Versions
from skewless.contract.status import BoolArray, Int64Array, Status
from skewless.contract.windows.tiles import AppliedPositions
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.log_parts import AppliedBatches
from skewless.infra.offline.views import OfflineViews
from skewless.infra.offline.window_positions import applied_matrix, find_touched_rows
from skewless.infra.predictions.reader import LoggedPredictions
from skewless.validation.rebuilt_predictions import RebuiltPredictions, entity_table, key_rows
from skewless.validation.replay_report import Cause, Findings

_Ranks = npt.NDArray[np.int64]
_Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class InFlightReads:
    """Reads of keys whose row changed while they were read, shape ``(n,)``.

    Args:
        changed: a run was changing the key's row.
        saw_old, saw_new: what was found.
    """

    changed: BoolArray
    saw_old: BoolArray
    saw_new: BoolArray


def check_versions(
    view: View, views: OfflineViews, logged: LoggedPredictions, rebuilt: RebuiltPredictions, findings: Findings
) -> InFlightReads:
    """Find reads that no honest store could have answered; return those that raced with a run."""
    named = logged.reads[view.name]
    answered = named.status != Status.UNAVAILABLE
    # Server and publisher each measured their distance to the store's clock; they may err to opposite sides.
    skew = logged.skew_us + max((run.skew_us for run in views.ledger.runs()), default=0)
    oldest = _standing(view, views, rebuilt, logged.read_start - skew - 1, "finished")
    newest = _standing(view, views, rebuilt, logged.read_end + skew, "started")
    read = _ranks(named.versions)
    too_old, too_new = answered & _less(read, oldest), answered & _less(newest, read)
    if too_old.any():
        _name_old(view, rebuilt, logged, np.flatnonzero(too_old), findings)
    for i in np.flatnonzero(too_new).tolist():
        detail = f"{tuple(read[i].tolist())} read, the newest possible is {tuple(newest[i].tolist())}"
        findings.add(logged.ids[i], Cause.UNKNOWN_VERSION, view.name, detail)
    changed = answered & _less(oldest, newest)
    return InFlightReads(
        changed=changed,
        saw_old=changed & ~_less(oldest, read),
        saw_new=changed & _less(oldest, read),
    )


def _standing(view: View, views: OfflineViews, rebuilt: RebuiltPredictions, moment: Any, order: Any) -> _Ranks:  # noqa: ANN401 - int64 array, Order
    return _ranks(views.read_view(view, entity_table(view, rebuilt.ask, moment), order).versions)


def _ranks(versions: Versions) -> _Ranks:
    # One partition a view: the rank is the triple of SEMANTICS 2.1; nothing found ranks lowest.
    ranks = np.stack([versions.event_ts, versions.created_ts, versions.seq], axis=1)
    ranks[versions.seq < 0] = (NO_TIME, NO_TIME, -1)
    return ranks


def _less(left: _Ranks, right: _Ranks) -> BoolArray:
    less, equal = np.zeros(len(left), dtype=np.bool_), np.ones(len(left), dtype=np.bool_)
    for column in range(left.shape[1]):
        less |= equal & (left[:, column] < right[:, column])
        equal &= left[:, column] == right[:, column]
    return less


def _name_old(
    view: View, rebuilt: RebuiltPredictions, logged: LoggedPredictions, rows: npt.NDArray[np.intp], findings: Findings
) -> None:
    """Tell rows that were never there from older ones written over them."""
    read, keys = _ranks(logged.reads[view.name].versions), key_rows(view, rebuilt.ask)
    best = _best_by_end({keys[i] for i in rows}, keys, logged.read_end, read)
    for i in rows:
        now = tuple(read[i].tolist())
        ends, ranks = best[keys[i]]
        before = bisect_left(ends, int(logged.read_start[i])) - 1
        stale = now[-1] >= 0 and before >= 0 and ranks[before] > now
        cause = Cause.STALE_WRITE if stale else Cause.LOST_WRITE
        findings.add(logged.ids[i], cause, view.name, f"key {keys[i]} read {now if now[-1] >= 0 else 'nothing'}")


def _best_by_end(
    wanted: set[_Key], keys: Sequence[_Key], read_end: Int64Array, read: _Ranks
) -> dict[_Key, tuple[list[int], list[tuple[int, ...]]]]:
    """Return per key the ends of its reads, in order, and beside each the newest row read by then."""
    best: dict[_Key, tuple[list[int], list[tuple[int, ...]]]] = {key: ([], []) for key in wanted}
    for i in np.argsort(read_end, kind="stable"):
        if keys[i] in wanted:
            ends, ranks = best[keys[i]]
            rank = tuple(read[i].tolist())
            ends.append(int(read_end[i]))
            ranks.append(max(rank, ranks[-1]) if ranks else rank)
    return best


def check_states(
    view: WindowView, views: OfflineViews, logged: LoggedPredictions, ask: ParsedRows, findings: Findings
) -> None:
    """Find reads of states that no honest store could have held."""
    named = logged.reads[view.name]
    answered = np.flatnonzero(named.status == Status.PRESENT)
    if not len(answered):
        return
    parts = views.log_partitions(view)
    applied, _ = applied_matrix(named.applied or AppliedPositions.empty(), parts, len(logged.ids))
    entities = entity_table(view, ask, logged.t)
    for number, part in enumerate(parts):
        batches = AppliedBatches.read(views.connection, part)
        surely = batches.last_surely_applied(logged.read_start - logged.skew_us - 1)
        possibly = batches.last_possibly_applied(logged.read_end + logged.skew_us)
        position = applied[:, number]
        for i in answered[(position > possibly)[answered]].tolist():
            detail = f"position {position[i]} of {part.partition} was read before it was taken"
            findings.add(logged.ids[i], Cause.UNKNOWN_VERSION, view.name, detail)
        behind = answered[(position < surely)[answered]]
        rows = entities.take(behind)
        for i in behind[
            find_touched_rows(views.connection, view, part, rows, position[behind], surely[behind])
        ].tolist():
            detail = f"position {position[i]} of {part.partition} read, {surely[i]} had been applied"
            findings.add(logged.ids[i], Cause.LOST_WRITE, view.name, detail)
