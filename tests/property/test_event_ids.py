"""SEMANTICS 4.4: an event id counts once in its source, whichever door, partition and process it comes through."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.contract.arrow_types import arrow_type
from skewless.contract.clock import ManualClock
from skewless.contract.errors import ConflictError
from skewless.infra.ingest.streams.decode import Decoder
from skewless.infra.ingest.streams.event_ids import Digests, EventIds, IdIndex
from skewless.infra.ingest.streams.importing import ImportResult
from skewless.infra.ingest.streams.partition_worker import PartitionWorker
from skewless.infra.ingest.streams.port import Messages, Partition
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.log.catalog import End, Segment, log_partitions
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import EVENT_ID, INGEST, REJECT
from skewless.infra.log.partition_log import Check, PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from skewless.infra.reads.offline.engine import connect
from tests.unit.infra.streams.test_importing import importer
from tests.worlds.streams import BASE, SOURCE, VIEW

HORIZON = 10
BRIEF = replace(SOURCE, dedupe_us=HORIZON)
PROCESSES, LANES = 2, 2
Events = list[tuple[str | None, bool]]
SCHEMA = pa.schema(
    [
        *(pa.field(column.name, arrow_type(column.dtype)) for column in SOURCE.columns),
        pa.field("ts", pa.timestamp("us", tz="UTC")),
    ]
)
EVENT = st.tuples(st.sampled_from([*"abcde", None]), st.booleans())  # an id, and whether it can be accepted
STEP = st.tuples(
    st.integers(0, PROCESSES - 1),
    st.integers(0, LANES),  # a lane; or the last: a file that is imported
    st.sampled_from([0, 1, 5, HORIZON - 1, HORIZON, HORIZON + 1]),  # time since the last step
    st.lists(EVENT, min_size=1, max_size=4),
    st.sampled_from(["go on", "go on", "restart", "compact"]),
)


@dataclass
class Process:
    """One worker with lanes of its own, which share what it knows of ids."""

    root: Path
    number: int
    positions: list[int] = field(default_factory=lambda: [0] * LANES)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        ids, decoder = EventIds(BRIEF, ProjectState(self.root), HORIZON), Decoder(BRIEF, [VIEW], 1_000)
        names = [f"{self.number}-{i}" for i in range(LANES)]
        self.partition_workers = [
            PartitionWorker(
                partition=Partition(name=name, epoch="e"),
                log=PartitionLog(ProjectState(self.root), f"events/s/e/{name}"),
                decoder=decoder,
                ids=ids,
            )
            for name in names
        ]

    def take(self, partition_worker: int, events: Events, now: int, counts: SourceCounts) -> None:
        one, first = self.partition_workers[partition_worker], self.positions[partition_worker]
        made = [json.dumps({"event": name, "id": 1 if good else "x", "ts": BASE}).encode() for name, good in events]
        self.positions[partition_worker] += len(made)
        one.add_messages(
            Messages(
                partition=one.partition, positions=range(first, self.positions[partition_worker]), payloads=list(made)
            )
        )
        one.accept(now, counts)


def taken_in(root: Path, number: int, events: Events, now: int, connection: duckdb.DuckDBPyConnection) -> ImportResult:
    """Import events as the next file; the others are there still."""
    made = [
        {"event": name, "id": 1 if good else None, "x": float(number), "y": None, "n": i, "s": None, "ts": BASE}
        for i, (name, good) in enumerate(events)
    ]
    (root / "history").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(made, schema=SCHEMA), root / f"history/{number:03}.parquet")
    source = replace(BRIEF, history="history")
    return importer(root, connection, source=source, clock=ManualClock(now)).run()


@pytest.mark.timeout(900)
@settings(max_examples=max(1, settings().max_examples // 2))  # an example takes half a second
@given(st.lists(STEP, max_size=12))
def test_4_4_an_id_counts_once_through_whichever_lane_process_and_file(
    steps: list[tuple[int, int, int, Events, str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, connect(Path(folder) / "spill", threads=1) as connection:
        root, now, counts = Path(folder), BASE, SourceCounts(source="s")
        processes = [Process(root, number) for number in range(PROCESSES)]
        accepted: dict[str, int] = {}
        expected: list[tuple[str | None, int]] = []
        rejected = files = 0
        for process, partition_worker, wait, events, what in steps:
            now += wait
            if what == "restart":
                processes[process].start()
            if what == "compact":
                log = processes[process].partition_workers[partition_worker % LANES].log
                compact(log, keep=0, group=lambda _: "all")
            is_file = partition_worker == LANES
            if is_file:
                files += 1
                done = taken_in(root, files, events, now, connection)
                counts.accepted, counts.rejected = counts.accepted + done.accepted, counts.rejected + done.rejected
                counts.duplicates += done.duplicates
            else:
                processes[process].take(partition_worker, events, now, counts)
            # A stream compares with the ids of its horizon, a file with all.
            horizon = 10 * len(steps) * HORIZON if is_file else HORIZON
            for name, good in events:
                rejected += not good
                if good and (name is None or name not in accepted or now - accepted[name] > horizon):
                    expected.append((name, now))
                    accepted |= {} if name is None else {name: now}
        logged = [
            row
            for name in log_partitions(ProjectState(root), "s")
            for rows in PartitionLog(ProjectState(root), name).read(columns=[EVENT_ID, INGEST, REJECT])
            for row in rows.to_pylist()
        ]
        whole = [(row[EVENT_ID], row[INGEST]) for row in logged if row[REJECT] is None]
        assert sorted(whole, key=repr) == sorted(expected, key=repr)
        sent = sum(len(events) for _, _, _, events, _ in steps)
        assert (counts.accepted, counts.rejected) == (len(expected), rejected)
        assert counts.duplicates == sent - len(expected) - rejected


class OvertakenLog(PartitionLog):
    """A log to which another process accepts events between the comparison of ids and the append."""

    def overtake(self, accept: Callable[[], object]) -> None:
        self._accept: Callable[[], object] = accept

    def append(
        self, rows: pa.Table, *, at: int | None = None, check: Check | None = None, end: End | None = None
    ) -> Segment:
        self._accept()
        return super().append(rows, at=at, check=check, end=end)


def test_4_4_an_append_fails_if_another_process_that_believes_to_have_the_lock_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after a lost connection, neither excludes the other.
    monkeypatch.setattr(SqliteDatabase, "hold_lock", lambda *_: nullcontext())
    state = ProjectState(tmp_path)
    one, other = (EventIds(BRIEF, state, HORIZON) for _ in range(2))
    log = OvertakenLog(state, "events/s/e/0")
    rows = Decoder(BRIEF, [VIEW], 1_000).decode([b'{"event": "a", "id": 1, "ts": %d}' % BASE], [0], BASE)
    log.overtake(lambda: other.accept(PartitionLog(state, "events/s/e/1"), rows, at=None, now_us=BASE))
    with pytest.raises(ConflictError, match="event source 's': was written by another process"):
        one.accept(log, rows, at=0, now_us=BASE)
    assert log.next_seq() == 0
    assert one.accept(log, rows, at=0, now_us=BASE)[1] is None  # it knows the id now
    log.overtake(lambda: None)
    last = one.accept(log, rows, at=0, now_us=BASE + HORIZON + 1)[1]  # the log is not lost
    assert last is not None
    assert last.first == 0


HALVES = st.tuples(st.integers(0, 2), st.integers(0, 2))  # so few that first halves meet


@given(st.lists(st.tuples(st.integers(0, HORIZON + 2), st.lists(HALVES, max_size=6, unique=True)), max_size=12))
def test_an_index_is_a_dict_of_the_newest_acceptances(batches: list[tuple[int, list[tuple[int, int]]]]) -> None:
    def digests(pairs: list[tuple[int, int]]) -> Digests:
        return np.ascontiguousarray(np.array(pairs, dtype=np.uint64).reshape(-1, 2).T)

    every = [(first, second) for first in range(3) for second in range(3)]
    index, model, now = IdIndex(HORIZON), dict[tuple[int, int], int](), 0
    for wait, pairs in batches:
        now += wait
        index.add(digests(pairs), now)
        model |= dict.fromkeys(pairs, now)
        expected = [pair in model and now - model[pair] <= HORIZON for pair in every]
        assert index.find_known(digests(every), now).tolist() == expected


def test_ids_past_the_horizon_are_given_up() -> None:
    index, batch = IdIndex(100), 10
    most = 0
    for moment in range(2_000):
        digests = np.stack([np.arange(batch, dtype=np.uint64) + np.uint64(moment * batch), np.zeros(batch, np.uint64)])
        index.add(digests, moment)
        most = max(most, len(index))
    assert 101 * batch <= most <= 2 * 101 * batch
