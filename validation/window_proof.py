"""Windowed views in logged predictions: computed again from the log, and whether the states may have been so (2.7).

A prediction names, for each entity and log partition, the last position that had been applied to the state which it
read. From the rows up to there the windows follow. A state that was read between ``read_start`` and ``read_end`` lies
between two lines::

    applied by then       no event of the entity in a batch whose applying had ended before read_start - skew is missing
    not from the future   no event in a batch that was taken after read_end + skew is there
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skewless.contract.request import Ask
from skewless.contract.rows import ViewRead, missing
from skewless.contract.status import BoolArray, Int64Array, Status
from skewless.contract.windows.state_layout import partition_number
from skewless.contract.windows.tiles import Slots
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.log_parts import Batches
from skewless.infra.offline.views import OfflineViews
from skewless.infra.offline.window_events import LogPart
from skewless.infra.offline.window_positions import touched_between
from skewless.infra.predictions.reader import Logged
from skewless.validation.entities import entity_table
from skewless.validation.findings import Cause, Findings


def rebuilt_windows(view: WindowView, views: OfflineViews, logged: Logged, ask: Ask, findings: Findings) -> ViewRead:
    """Return what a windowed view must have answered, from the rows that had been applied."""
    named = logged.reads[view.name]
    answered = named.status != Status.UNAVAILABLE
    for i in np.flatnonzero(np.array(named.hashes) != view.hash).tolist():
        findings.add(logged.ids[i], Cause.PLAN, view.name, f"read under view hash {named.hashes[i]}")
    if not answered.any():
        return missing(view, len(answered), available=False)
    parts = views.log_parts(view)
    slots = named.applied or Slots.none()
    applied, known = applied_matrix(slots, parts, len(answered))
    for i in np.unique(slots.entity[~known]).tolist():
        findings.add(logged.ids[i], Cause.LOG_ALTERED, view.name, "its log partition is gone")
    read = views.join.read_applied(view, parts, entity_table(view, ask, logged.t), applied)
    return replace(read, unanswered=~answered)


def applied_matrix(slots: Slots, parts: list[LogPart], n: int) -> tuple[Int64Array, BoolArray]:
    """Return the last applied position per row and part, shape ``(n, n_parts)``, and which slots name a part."""
    hashes = np.array([partition_number(part.partition) for part in parts], dtype=np.int64)
    order = np.argsort(hashes)
    place = np.searchsorted(hashes[order], slots.partition).clip(max=max(len(parts) - 1, 0))
    known = hashes[order][place] == slots.partition if len(parts) else np.zeros(len(slots.entity), dtype=np.bool_)
    applied = np.full((n, len(parts)), -1, dtype=np.int64)
    applied[slots.entity[known], order[place[known]]] = slots.seq[known]
    return applied, np.asarray(known, dtype=np.bool_)


def check_states(view: WindowView, views: OfflineViews, logged: Logged, ask: Ask, findings: Findings) -> None:
    """Find reads of states that no honest store could have held."""
    named = logged.reads[view.name]
    answered = np.flatnonzero(named.status == Status.PRESENT)
    if not len(answered):
        return
    parts = views.log_parts(view)
    applied, _ = applied_matrix(named.applied or Slots.none(), parts, len(logged.ids))
    entities = entity_table(view, ask, logged.t)
    for number, part in enumerate(parts):
        batches = Batches.of(views.connection, part)
        surely = batches.surely(logged.read_start - logged.skew_us - 1)
        possibly = batches.possibly(logged.read_end + logged.skew_us)
        position = applied[:, number]
        for i in answered[(position > possibly)[answered]].tolist():
            detail = f"position {position[i]} of {part.partition} was read before it was taken"
            findings.add(logged.ids[i], Cause.UNKNOWN_VERSION, view.name, detail)
        behind = answered[(position < surely)[answered]]
        rows = entities.take(behind)
        for i in behind[touched_between(views.connection, view, part, rows, position[behind], surely[behind])].tolist():
            detail = f"position {position[i]} of {part.partition} read, {surely[i]} had been applied"
            findings.add(logged.ids[i], Cause.LOST_WRITE, view.name, detail)
