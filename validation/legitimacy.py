"""Whether the version of a row that a prediction read may have been there (SEMANTICS 2.7).

A read at t that ended at ``read_end`` may find, for each key, anything between::

    oldest: the winner among rows of runs that ended before t - skew
    newest: the winner among rows of runs that began before read_end + skew
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.offline.views import OfflineViews
from infra.predictions.reader import Logged
from skewless.plan import View
from skewless.rows import NO_TIME, Versions
from skewless.status import BoolArray, Status
from validation.findings import Cause, Findings
from validation.rebuilt import Rebuilt, entity_table, key_rows

_Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """Reads of keys whose row changed while they were read, shape ``(n,)``.

    Args:
        changed: a run was changing the key's row.
        saw_old, saw_new: what was found.
    """

    changed: BoolArray
    saw_old: BoolArray
    saw_new: BoolArray


def check_versions(view: View, views: OfflineViews, logged: Logged, rebuilt: Rebuilt, findings: Findings) -> InFlight:
    """Find reads that no honest store could have answered; return those that raced with a run."""
    named = logged.reads[view.name]
    answered = named.status != Status.UNAVAILABLE
    oldest = _standing(view, views, rebuilt, logged.t - logged.skew_us - 1, "finished")
    newest = _standing(view, views, rebuilt, logged.read_end + logged.skew_us - 1, "started")
    read = _ranks(named.versions)
    too_old, too_new = answered & _less(read, oldest), answered & _less(newest, read)
    _name_old(view, rebuilt, logged, too_old, read, findings)
    for i in np.flatnonzero(too_new):
        detail = f"{tuple(read[i].tolist())} read, the newest possible is {tuple(newest[i].tolist())}"
        findings.add(logged.ids[i], Cause.UNKNOWN_VERSION, view.name, detail)
    changed = answered & _less(oldest, newest)
    return InFlight(
        changed=changed,
        saw_old=changed & ~_less(oldest, read),
        saw_new=changed & _less(oldest, read),
    )


def _standing(view: View, views: OfflineViews, rebuilt: Rebuilt, moment: Any, order: Any) -> _Ranks:  # noqa: ANN401 - int64 array, Order
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
    view: View, rebuilt: Rebuilt, logged: Logged, too_old: BoolArray, read: _Ranks, findings: Findings
) -> None:
    if not too_old.any():
        return
    seen: dict[tuple[Any, ...], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    keys = key_rows(view, rebuilt.ask)
    for i, key in enumerate(keys):
        seen[key].append((int(logged.read_end[i]), tuple(read[i].tolist())))
    for i in np.flatnonzero(too_old):
        now = tuple(read[i].tolist())
        newer_before = any(end < logged.t[i] and rank > now for end, rank in seen[keys[i]])
        cause = Cause.STALE_WRITE if newer_before else Cause.LOST_WRITE
        findings.add(logged.ids[i], cause, view.name, f"key {keys[i]} read {now}")
