"""The features of one request in a test, the comparison with the expected values, and the evidence of a difference."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from skewless.contract.columns import PREDICTION, REQUEST, FeatureRef, Transform
from skewless.contract.errors import DefinitionError
from skewless.contract.keys import KeyValue
from skewless.contract.plan import FeaturePlan
from skewless.contract.readable import length_text
from skewless.contract.windows.hops import window_start
from skewless_testing.records import GivenEvent, RowRecords, WindowReads, row_text, time_text

_SEPARATOR = "__"
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
        if winner and 0 < records.view.ttl_us < self.t - winner.event_us:
            lines[0] += f" (expired: older than {length_text(records.view.ttl_us)})"
        others = [row for row in given if row is not winner]
        lines += [
            f"not used: {row_text(row.values)}"
            + (f" (known at {time_text(row.known_us)})" if row.known_us > self.t else " (a later row wins)")
            for row in others
        ]
        return _cut(lines)

    def _of_window(self, ref: FeatureRef) -> list[str]:
        reads = self.windows[ref.group]
        item = next(item for item in reads.view.aggregates if item.name == ref.name)
        start = window_start(self.t, item.window_us, item.hop_us)
        key = [self.keys[column.name] for column in reads.view.keys]
        counted = reads.counted(key, self.t)
        inside = [event for event in counted if event.ts >= start]
        span = f"from {time_text(start)} to {time_text(self.t)} (excluded)"
        lines = [
            f"{item.text} over {length_text(item.window_us)}, {span}",
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


class FeatureVector(Mapping[str, Any]):
    """The features of one request, by name: ``view__feature``, or ``feature`` where only one view has it.

    Numbers are as a model sees them, text is text, None is missing.

    Attributes:
        status: status of the row that each view read, such as ``PRESENT`` or ``EXPIRED``.
    """

    def __init__(
        self,
        *,
        service: str,
        t: int,
        inputs: Mapping[str, Any],
        values: Mapping[str, Any],
        status: Mapping[str, str],
        evidence: FeatureEvidence,
    ) -> None:
        self.status = status
        self._title = f"{service} at {time_text(t)} for {row_text(inputs) or 'no input'}"
        self._values, self._evidence = values, evidence

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - of any feature
        return self._values[self._label(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{self._title}: {row_text(self._values)}>"

    def expect(self, expected: Mapping[str, Any] | None = None, /, **features: Any) -> None:  # noqa: ANN401
        """Compare features with expected values; features that are not named are not compared.

        Args:
            expected: name -> value; ``pytest.approx(...)`` is a value too, None is missing.
            features: more of them, by keyword.

        Raises:
            AssertionError: a feature differs; the message has the expected and the actual value, and the events or
                rows from which it was computed.
            DefinitionError: a name is unknown or belongs to two views.
        """
        __tracebackhide__ = True
        differences = [
            line
            for name, value in {**(expected or {}), **features}.items()
            if not _is_equal(value, self[name])
            for line in self._difference(self._label(name), value)
        ]
        if differences:
            raise AssertionError("\n".join([self._title, *differences]))

    def explain(self, name: str) -> str:
        """Return from which events, rows or fields a feature was computed."""
        return "\n".join(self._evidence.lines(self._label(name)))

    def _difference(self, label: str, expected: object) -> list[str]:
        got = self._values[label]
        lines = [f"  {label}: expected {_shown(expected)}, got {_shown(got)}"]
        return lines + [f"    {line}" for line in self._evidence.lines(label)]

    def _label(self, name: str) -> str:
        if name in self._values:
            return name
        labels = [label for label in self._values if label.partition(_SEPARATOR)[2] == name]
        if len(labels) == 1:
            return labels[0]
        if labels:
            raise DefinitionError("feature", "belongs to several views", value=name, fix=f"use {', '.join(labels)}")
        close = difflib.get_close_matches(name, list(self._values), n=3, cutoff=0.3) or list(self._values)
        raise DefinitionError("feature", "is unknown", value=name, fix=f"use one of {', '.join(close)}")


def _is_equal(expected: object, got: object) -> bool:
    if expected is None or got is None:
        return expected is got
    return bool(expected == got)


def _shown(value: object) -> str:
    return "missing (None)" if value is None else repr(value)
