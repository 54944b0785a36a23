"""SEMANTICS 1.4, 2.6, 4.2: whatever is done to an event log, and wherever it is killed, it holds what a list holds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from skewless.infra.log.accepted import SEQ
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.log.event_log import EventLog

from skewless.contract.errors import ConflictError
from tests.integration.infra.event_logs import PARTITION

STEPS = ("fsync", "link", "replace", "unlink", "pwrite")


class KilledError(BaseException):
    """Not an Exception: nothing in the log may catch it, as nothing catches a kill."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Kill at a durable step; from there on nothing reaches the disk."""
    calls = 0

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls > step:
                raise KilledError
            return real(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            yield
        except KilledError:
            return


class EventLogMachine(RuleBasedStateMachine):
    """The log against a list of rows and a list of when each row became known."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        # A kill is not a power cut: nothing here depends on the disk.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda _: None)
        self.now = 4e9
        self.rows: list[dict[str, Any]] = []
        self.known: list[int | None] = []
        self.log = self.opened()
        self.reader = self.opened()
        self.ticks = 0

    def opened(self) -> EventLog:
        return EventLog(self.root, PARTITION, clock=lambda: self.now)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.patch.undo()
            shutil.rmtree(self.root)

    def batch(self, size: int, extra: str | None) -> list[dict[str, Any]]:
        start = len(self.rows)
        return [{"x": start + i, **({extra: f"{extra}{i}"} if extra else {})} for i in range(size)]

    def note(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows
        self.known += [None] * len(rows)

    def tick(self) -> int:
        self.ticks += 1
        return self.ticks

    @rule(size=st.integers(1, 5), extra=st.sampled_from([None, "a", "b"]))
    def append(self, size: int, extra: str | None) -> None:
        rows = self.batch(size, extra)
        assert self.log.append(pa.Table.from_pylist(rows)).first == len(self.rows)
        self.note(rows)

    @rule(size=st.integers(1, 5), step=st.integers(0, 5))
    def crash_in_append(self, size: int, step: int) -> None:
        rows = self.batch(size, None)
        with killed_at(step):
            self.log.append(pa.Table.from_pylist(rows))
        self.reopen()
        if self.log.next_seq() > len(self.rows):
            self.note(rows)

    @rule()
    def reopen(self) -> None:
        self.log = self.opened()

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def record_end(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(self.rows) - 1))
        last = data.draw(st.integers(first, len(self.rows) - 1))
        at = self.tick()
        self.log.record_end(first, last, at)
        self.known[first : last + 1] = [at if old is None else old for old in self.known[first : last + 1]]

    @precondition(lambda self: None in self.known)
    @rule()
    def crash_in_ended(self) -> None:
        at = self.known.index(None)
        with killed_at(0):
            self.log.record_end(at, at, self.tick())
        self.reopen()
        with (self.root / PARTITION / "ends.bin").open("ab") as file:
            file.write(b"torn record")

    @rule(keep=st.integers(0, 3), rows=st.sampled_from([1, 4, 10, 100]))
    def compact(self, keep: int, rows: int) -> None:
        self.log.compact(keep=keep, target_rows=rows)
        assert self.log.compact(keep=keep, target_rows=rows).written == 0

    @rule(keep=st.integers(0, 3), rows=st.sampled_from([4, 100]), step=st.integers(0, 20))
    def crash_in_compact(self, keep: int, rows: int, step: int) -> None:
        with killed_at(step):
            self.log.compact(keep=keep, target_rows=rows)
        self.reopen()

    @rule(later=st.sampled_from([0, 300, 700]))
    def sweep(self, later: int) -> None:
        self.now += later
        self.log.sweep()

    @rule(step=st.integers(0, 6))
    def crash_in_sweep(self, step: int) -> None:
        self.now += 700
        with killed_at(step):
            self.log.sweep()
        self.reopen()

    @rule(size=st.integers(1, 9), is_late=st.booleans())
    def a_paused_writer_comes_back(self, size: int, *, is_late: bool) -> None:
        paused = self.log
        for _ in range(2):
            rows = self.batch(1, None)
            self.log.append(pa.Table.from_pylist(rows))
            self.note(rows)
            self.reopen()
        if is_late:
            self.log.compact(keep=0, target_rows=100)
            self.now += 700
            self.log.sweep()
        with pytest.raises(ConflictError):
            paused.append(pa.table({"x": [-1] * size}))

    @rule(data=st.data())
    def a_range_is_read(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(self.rows) + 1))
        last = data.draw(st.integers(first, len(self.rows) + 1))
        found = [row for part in self.reader.read(first, last, ["x"]) for row in part["x"].to_pylist()]
        assert found == [row["x"] for row in self.rows[first : last + 1]]

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        if not hasattr(self, "log"):
            return
        names = ["x", "a", "b", SEQ, KNOWN_AT]
        expected = [
            {"x": row["x"], "a": row.get("a"), "b": row.get("b"), SEQ: seq, KNOWN_AT: known}
            for seq, (row, known) in enumerate(zip(self.rows, self.known, strict=True))
        ]
        assert self.log.next_seq() == len(self.rows)
        assert [row for part in self.log.read(columns=names) for row in part.to_pylist()] == expected
        spans = self.log.spans()
        assert [span.first for span in spans] == [0, *(span.last + 1 for span in spans)][: len(spans)]


TestEventLogMachine = EventLogMachine.TestCase
# Each step reads the whole log.
TestEventLogMachine.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=20)
