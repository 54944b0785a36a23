"""From which events, rows and fields a feature was computed: the lines of a failed comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy.typing as npt

from skewless.contract.columns import PREDICTION, REQUEST, FeatureRef, Transform
from skewless.contract.keys import KeyValue
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.hops import window_start
from skewless.testing.event_records import GivenEvent, WindowReads
from skewless.testing.plain_values import row_text, time_text
from skewless.testing.row_records import RowRecords

_MOST_LINES = 12


@dataclass(frozen=True, kw_only=True)
class FeatureEvidence:
    """The sources of the features of one request.

    Args:
        plan: of the service.
        rows, windows: of the test case, by view.
        keys: entity keys of the request.
        t: time of the prediction, microseconds.
        request: request fields, each of shape ``(1,)``.
    """

    plan: FeaturePlan
    rows: Mapping[str, RowRecords]
    windows: Mapping[str, WindowReads]
    keys: Mapping[str, KeyValue | None]
    t: int
    request: Mapping[str, npt.NDArray[Any]]

    def lines(self, label: str) -> list[str]:
        """Return the lines about one feature."""
        ref = next(ref for ref in self.plan.services[0].features if ref.label == label)
        transform = next((item for item in self.plan.transforms if item.name == ref.group), None)
        return self._of_transform(transform) if transform else self._of_input(ref)

    def _of_input(self, ref: FeatureRef) -> list[str]:
        if ref.group == REQUEST:
            return [f"request field {row_text({ref.name: self.request[ref.name][0]})}"]
        if ref.group == PREDICTION:
            return [f"time of the prediction {time_text(self.t)}"]
        return self._of_window(ref) if ref.group in self.windows else self._of_row(ref.group)

    def _of_transform(self, transform: Transform) -> list[str]:
        lines = [f"computed by {transform.function}({', '.join(ref.name for ref in transform.inputs)}) from"]
        parts = {line: None for ref in transform.inputs for line in self._of_input(ref)}
        return [*lines, *(f"  {line}" for line in parts)]

    def _of_row(self, view: str) -> list[str]:
        records = self.rows[view]
        key = [self.keys[column.name] for column in records.view.keys]
        given, winner = records.of_entity(key), records.winner(key, self.t)
        if winner is None and not given:
            return [f"view {view} has no row of this entity"]
        lines = [f"row of {view}: {row_text(winner.values)}"] if winner else [f"view {view}: no row is known yet"]
        if winner and self._is_expired(records, winner.event_us):
            lines[0] += f" (expired: older than {timedelta(microseconds=records.view.ttl_us)})"
        others = [row for row in given if row is not winner]
        lines += [
            f"not used: {row_text(row.values)}"
            + (f" (known at {time_text(row.known_us)})" if row.known_us > self.t else " (a later row wins)")
            for row in others
        ]
        return _cut(lines)

    def _is_expired(self, records: RowRecords, event_us: int) -> bool:
        return 0 < records.view.ttl_us < self.t - event_us

    def _of_window(self, ref: FeatureRef) -> list[str]:
        reads = self.windows[ref.group]
        item = next(item for item in reads.view.aggregates if item.name == ref.name)
        start = window_start(self.t, item.window_us, item.hop_us)
        key = [self.keys[column.name] for column in reads.view.keys]
        counted = reads.counted(key, self.t)
        inside = [event for event in counted if event.ts >= start]
        span = f"from {time_text(start)} to {time_text(self.t)} (excluded)"
        lines = [
            f"{item.function} of {item.column} over {timedelta(microseconds=item.window_us)}, {span}",
            f"{len(inside)} events of {reads.view.source} count:",
            *(f"  {self._event_text(reads, event)}" for event in inside),
        ]
        outside = [event for event in reads.of_entity(key) if not any(event is each for each in inside)]
        lines += [
            f"not counted: {self._event_text(reads, event)} ({self._reason(reads, event, start)})" for event in outside
        ]
        return _cut(lines)

    @staticmethod
    def _event_text(reads: WindowReads, event: GivenEvent) -> str:
        names = [column.name for column in reads.records.source.columns]
        return f"{time_text(event.ts)} {row_text({name: event.row[name][0].as_py() for name in names})}"

    def _reason(self, reads: WindowReads, event: GivenEvent, start: int) -> str:
        if event.known_us > self.t:
            return f"accepted at {time_text(event.known_us)}"
        if event.ts >= self.t:
            return "not before the prediction"
        if event.ts < start:
            return "before the window"
        accepted = any(event is each for each in reads.records.known_at(self.t))
        return f"{reads.view.filter} is not true" if accepted else "its id was accepted before"


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"and {more} more"]
