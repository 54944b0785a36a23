"""SEMANTICS 1.4, 2.6, 4.2: whatever is done to a log, and wherever it is killed, it holds what a list holds."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skewless.contract.dtypes import DType
from skewless.contract.errors import ConflictError
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import CompactionReport, compact
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from tests.integration.infra.partition_logs import PARTITION, listed, objects, sweep
from tests.worlds.plans import columns

WRITERS, READERS = 3, 3
# Of the keys, the log may lack the column ``a``.
ORDERS = st.none() | st.builds(
    lambda keys, buckets, rows: BucketOrder(keys=columns(keys), buckets=buckets, block_rows=rows, group_rows=2),
    st.sampled_from([{"x": DType.INT64}, {"x": DType.INT64}, {"a": DType.STRING, "x": DType.INT64}]),
    st.sampled_from([2, 7, 4_096]),
    st.integers(1, 5),
)


class KilledError(BaseException):
    """Not an Exception: nothing in the log may catch it, as nothing catches a kill."""


class CountedCommit(sqlite3.Connection):
    """A connection whose commits are steps."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401 - of sqlite3
        if sql == "COMMIT":
            os.sync()
        return super().execute(sql, *values)


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Kill at a durable step; from there on nothing reaches the disk, and no transaction is committed."""
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
        for name in ("fsync", "link", "unlink", "utime", "sync"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            yield
        except KilledError:
            return


class LogMachine(RuleBasedStateMachine):
    """The log against a list of rows and a list of when each row became known."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        # A kill is not a power cut: nothing here depends on the disk.
        self.patch.setattr(os, "fsync", lambda _: None)
        self.patch.setattr(os, "sync", lambda: None)
        self.patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=CountedCommit))
        self.state = ProjectState(self.root)
        self.rows: list[dict[str, Any]] = []
        self.known: list[int | None] = []
        self.ends: list[int] = [0]  # the next position after each segment that was appended
        self.writers = [self.opened() for _ in range(WRITERS)]
        self.positions: list[int | None] = [None] * WRITERS
        self.listings: dict[int, list[str]] = {}
        self.reader = self.opened()
        self.ticks = 0

    def opened(self) -> PartitionLog:
        return PartitionLog(self.state, PARTITION)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.state.database.close()
            self.patch.undo()
            shutil.rmtree(self.root)

    def batch(self, size: int, extra: str | None = None) -> list[dict[str, Any]]:
        start = len(self.rows)
        return [{"x": start + i, **({extra: f"{extra}{i}"} if extra else {})} for i in range(size)]

    def note(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows
        self.known += [None] * len(rows)
        self.ends.append(len(self.rows))

    @rule(
        writer=st.integers(0, WRITERS - 1),
        size=st.integers(1, 4),
        extra=st.sampled_from([None, "a", "b"]),
        at=st.booleans(),
    )
    def append(self, writer: int, size: int, extra: str | None, *, at: bool) -> None:
        """A writer wins if it has seen the end of the log; a writer that has lost loses for good."""
        position, rows = self.positions[writer], self.batch(size, extra)
        expected = len(self.rows) if position is None else position
        if expected == len(self.rows):
            given_at = expected if at else None
            assert self.writers[writer].append(pa.Table.from_pylist(rows), at=given_at).first == expected
            self.note(rows)
            self.positions[writer] = len(self.rows)
        else:
            for _ in range(2):
                with pytest.raises(ConflictError):
                    self.writers[writer].append(pa.Table.from_pylist(rows))

    @rule(size=st.integers(1, 3))
    def stage(self, size: int) -> None:
        log, rows = self.opened(), self.batch(size)
        with log.stage_rows() as staged:
            for row in rows:
                staged.write(pa.Table.from_pylist([row]))
            assert log.commit_rows(staged).rows == size
        self.note(rows)

    @rule(size=st.integers(1, 5), step=st.integers(0, 6))
    def crash_in_append(self, size: int, step: int) -> None:
        rows = self.batch(size)
        with killed_at(step):
            self.opened().append(pa.Table.from_pylist(rows))
        if self.opened().next_seq() > len(self.rows):
            self.note(rows)

    @rule(writer=st.integers(0, WRITERS - 1))
    def reopen(self, writer: int) -> None:
        self.writers[writer], self.positions[writer] = self.opened(), None

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def record_end(self, data: st.DataObject) -> None:
        """Each segment whose last position is in the range is known, unless it was before."""
        first = data.draw(st.integers(0, len(self.rows) - 1))
        last = data.draw(st.integers(first, len(self.rows) - 1))
        self.ticks += 1
        self.reader.record_end(first, last, self.ticks)
        for start, end in zip(self.ends, self.ends[1:], strict=False):
            if first < end <= last + 1 and self.known[end - 1] is None:
                self.known[start:end] = [self.ticks] * (end - start)

    @rule(keep=st.integers(0, 3), rows=st.sampled_from([1, 4, 10, 100]), order=ORDERS)
    def compact(self, keep: int, rows: int, order: BucketOrder | None) -> None:
        compact(self.opened(), keep=keep, target_rows=rows, order=order)
        assert compact(self.opened(), keep=keep, target_rows=rows, order=order).written == 0

    @rule(rows=st.sampled_from([4, 100]))
    def compact_in_two_processes(self, rows: int) -> None:
        """The other one does its work just before this one replaces its first segments."""
        real, others = Catalog.replace, list[CompactionReport]()

        def overtaken(catalog: Catalog, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - of replace
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Catalog, "replace", real)
                others.append(compact(self.opened(), keep=0, target_rows=rows))
            real(catalog, *arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Catalog, "replace", overtaken)
            report = compact(self.opened(), keep=0, target_rows=rows)
        assert report.written == 0
        assert all(other.written for other in others)

    @rule(keep=st.integers(0, 3), rows=st.sampled_from([4, 100]), step=st.integers(0, 20), order=ORDERS)
    def crash_in_compaction(self, keep: int, rows: int, step: int, order: BucketOrder | None) -> None:
        with killed_at(step):
            compact(self.opened(), keep=keep, target_rows=rows, order=order)

    @rule(reader=st.integers(0, READERS - 1))
    def list_files(self, reader: int) -> None:
        """Another machine registers as a reader and lists the files."""
        holder = f"host/other/{reader}/ab"
        assert Leases(self.state.database, 60.0).acquire(f"log reader {holder}", holder=holder)
        if reader not in self.listings:
            self.listings[reader] = [segment.stored.name for segment in self.reader.segments()]

    @rule(reader=st.integers(0, READERS - 1))
    def kill_reader(self, reader: int) -> None:
        self.state.database.execute("DELETE FROM leases WHERE name = ?", f"log reader host/other/{reader}/ab")
        self.listings.pop(reader, None)

    @rule()
    def sweep(self) -> None:
        sweep(self.state)
        assert objects(self.state) >= listed(self.state)
        if not self.listings:
            assert objects(self.state) == listed(self.state)

    @rule(step=st.integers(0, 6))
    def crash_in_sweep(self, step: int) -> None:
        with killed_at(step):
            sweep(self.state)

    @rule(data=st.data())
    def read_range(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(self.rows) + 1))
        last = data.draw(st.integers(first, len(self.rows) + 1))
        values = [value for part in self.reader.read(first, last, ["x"]) for value in part["x"].to_pylist()]
        assert values == [row["x"] for row in self.rows[first : last + 1]]

    @precondition(lambda self: self.rows)
    @rule(keep=st.integers(0, 1), order=ORDERS)
    def read_slowly(self, keep: int, order: BucketOrder | None) -> None:
        """Segments are merged and deleted between two batches."""
        parts = []
        for part in self.opened().read(columns=["x"]):
            parts += part["x"].to_pylist()
            compact(self.opened(), keep=keep, order=order)
            sweep(self.state)
        assert parts == [row["x"] for row in self.rows]

    @invariant()
    def has_all_rows(self) -> None:
        if not hasattr(self, "reader"):
            return
        names = ["x", "a", "b", SEQ, KNOWN_AT]
        expected = [
            {"x": row["x"], "a": row.get("a"), "b": row.get("b"), SEQ: seq, KNOWN_AT: known}
            for seq, (row, known) in enumerate(zip(self.rows, self.known, strict=True))
        ]
        assert self.reader.next_seq() == len(self.rows)
        assert [row for part in self.reader.read(columns=names) for row in part.to_pylist()] == expected
        segments = self.reader.segments()
        assert [segment.first for segment in segments] == [0, *(item.last + 1 for item in segments)][: len(segments)]

    @invariant()
    def readers_have_their_files(self) -> None:
        for names in getattr(self, "listings", {}).values():
            assert all((self.root / name).exists() for name in names)


TestLogMachine = LogMachine.TestCase
# Each step reads the whole log.
TestLogMachine.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=20)
