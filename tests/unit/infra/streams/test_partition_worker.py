"""One partition at work: duplicates through restarts, counts, and a log that somebody else wrote to."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import ConflictError
from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.decode import Decoder
from skewless.infra.ingest.streams.event_ids import EventIds
from skewless.infra.ingest.streams.partition_worker import PartitionWorker
from skewless.infra.ingest.streams.port import Messages, Partition
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.ingest.streams.state_writer import StateWriter
from skewless.infra.log.compaction import compact
from skewless.infra.log.daily_counts import DailyCounts
from skewless.infra.log.log_columns import REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.streams import BASE, SOURCE, VIEW

HORIZON = 10
PARTLY_SEEN = Partition(name="0", epoch="e")
BRIEF = replace(SOURCE, dedupe_us=HORIZON)
BATCHES = st.lists(
    st.tuples(
        st.integers(0, HORIZON + 1),  # time since the last batch
        st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=4),  # ids, and whether good
        st.booleans(),  # whether the worker is started again before
        st.booleans(),  # whether the log is compacted before
    ),
    max_size=8,
)


def opened(root: Path, ids: EventIds | None = None, partition: str = "0") -> PartitionWorker:
    return PartitionWorker(
        partition=PARTLY_SEEN,
        log=PartitionLog(ProjectState(root), f"events/s/e/{partition}"),
        decoder=Decoder(BRIEF, [VIEW], 1_000),
        ids=ids or EventIds(BRIEF, ProjectState(root), HORIZON),
    )


def message(name: str | None, *, good: bool = True, ts: int = BASE) -> bytes:
    return json.dumps({"event": name, "id": 1 if good else "x", "ts": ts}).encode()


def took(
    partition_worker: PartitionWorker, payloads: list[bytes | None], first: int, now_us: int, counts: SourceCounts
) -> None:
    positions = range(first, first + len(payloads))
    partition_worker.add_messages(Messages(partition=PARTLY_SEEN, positions=positions, payloads=payloads))
    partition_worker.accept(now_us, counts)


@given(BATCHES)
def test_4_4_an_id_is_remembered_for_its_time_through_restarts_and_compaction(
    batches: list[tuple[int, list[tuple[str, bool]], bool, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        now, position, counts = BASE, 0, SourceCounts(source="s")
        partition_worker = opened(Path(folder))
        expected: list[tuple[str, bool]] = []
        seen: dict[str, int] = {}
        for wait, events, again, is_compacted in batches:
            now += wait
            if is_compacted:
                compact(partition_worker.log, keep=1, group=lambda _: "all")
            if again:
                partition_worker = opened(Path(folder))
            took(partition_worker, [message(name, good=good) for name, good in events], position, now, counts)
            position += len(events)
            for name, good in events:
                if not good or now - seen.get(name, now - HORIZON - 1) > HORIZON:
                    expected.append((name, good))
                if good and now - seen.get(name, now - HORIZON - 1) > HORIZON:
                    seen[name] = now
        columns = ["event", REJECT]
        rows = [row for part in partition_worker.log.read(columns=columns) for row in part.to_pylist()]
        assert [(row["event"], row[REJECT] is None) for row in rows] == expected
        accepted = sum(good for _, good in expected)
        assert (counts.read, counts.accepted, counts.rejected) == (position, accepted, len(expected) - accepted)
        assert counts.duplicates == position - len(expected)
        daily = DailyCounts(ProjectState(Path(folder)).database)
        counts.save(daily)
        counts.save(daily)  # nothing twice
        days = daily.read("events/s")
        assert sum(day.accepted for day in days.values()) == accepted
        assert sum(day.rejected for day in days.values()) == counts.rejected
        assert sum(day.duplicates for day in days.values()) == counts.duplicates


def test_messages_without_an_id_are_all_events(tmp_path: Path) -> None:
    partition_worker, counts = opened(tmp_path), SourceCounts(source="s")
    took(partition_worker, [message(None), message(None)], 0, BASE, counts)
    assert (counts.accepted, counts.duplicates) == (2, 0)


def test_a_batch_of_duplicates_alone_writes_nothing_and_goes_on(tmp_path: Path) -> None:
    partition_worker, counts = opened(tmp_path), SourceCounts(source="s")
    took(partition_worker, [message("a")], 5, BASE, counts)
    took(partition_worker, [message("a"), message("a")], 6, BASE, counts)
    assert (partition_worker.next_position, partition_worker.log.next_seq(), counts.batches, counts.duplicates) == (
        8,
        1,
        1,
        2,
    )
    assert opened(tmp_path).next_position == 6


def test_4_2_a_lane_never_writes_behind_what_it_has_not_seen(tmp_path: Path) -> None:
    one, other, counts = opened(tmp_path), opened(tmp_path), SourceCounts(source="s")
    took(one, [message("a")], 0, BASE, counts)
    with pytest.raises(ConflictError):
        took(other, [message("a")], 0, BASE, counts)
    assert one.log.next_seq() == 1
    assert (counts.read, counts.accepted) == (1, 1)


class Applied:
    """Stands for a writer whose states are complete at a time."""

    def __init__(self) -> None:
        self.now_us: int | None = BASE

    def apply(self, *_: object) -> int:
        return 1

    def end_us(self) -> int | None:
        return self.now_us


def test_4_4_the_end_of_a_batch_is_recorded_by_the_next_append_or_alone(tmp_path: Path) -> None:
    partition_worker, counts, writer = opened(tmp_path), SourceCounts(source="s"), Applied()

    def process(name: str, now_us: int | None) -> list[tuple[int, int, int]]:
        position = partition_worker.next_position or 0
        partition_worker.add_messages(
            Messages(
                partition=PARTLY_SEEN,
                positions=[position],
                payloads=[
                    message(name),
                ],
            )
        )
        rows = partition_worker.accept(BASE, counts)
        writer.now_us = now_us
        if rows is not None:
            partition_worker.apply(cast(StateWriter, writer), rows, counts)
        ends = partition_worker.log.read_ends()
        return list(zip(*(ends[column].to_pylist() for column in ends.column_names), strict=True))

    assert process("a", BASE + 1) == []
    assert process("b", BASE + 2) == [(0, 0, BASE + 1)]
    assert process("b", BASE + 3) == [(0, 0, BASE + 1)]  # a repeat, which appends nothing
    assert process("c", None) == [(0, 0, BASE + 1), (1, 1, BASE + 2)]  # a needed view lacks it
    assert process("d", BASE + 5) == [(0, 0, BASE + 1), (1, 1, BASE + 2)]
    assert partition_worker.unrecorded_end == (2, 3, BASE + 5)
    writer.now_us = BASE + 9
    partition_worker.record_end(cast(StateWriter, writer))
    assert partition_worker.log.read_ends()["ended_us"].to_pylist() == [BASE + 1, BASE + 2, BASE + 5, BASE + 5]
    assert partition_worker.unrecorded_end is None


def test_late_events_and_the_watermark_are_counted(tmp_path: Path) -> None:
    partition_worker, counts = opened(tmp_path), SourceCounts(source="s")
    moments = [0, -SECOND, 5 * SECOND, 2 * SECOND, 3 * SECOND]
    took(partition_worker, [message(None, ts=BASE + each) for each in moments], 0, BASE, counts)
    assert (counts.late, counts.watermark_us) == (1, BASE + 5 * SECOND)
    took(partition_worker, [message(None, ts=BASE)], 5, BASE, counts)
    assert (counts.late, counts.watermark_us) == (2, BASE + 5 * SECOND)


def test_a_source_that_declares_its_id_later_knows_what_it_logged_before(tmp_path: Path) -> None:
    ids, counts = EventIds(replace(BRIEF, id_column=None), ProjectState(tmp_path), HORIZON), SourceCounts(source="s")
    partition_worker = PartitionWorker(
        partition=PARTLY_SEEN,
        log=PartitionLog(ProjectState(tmp_path), "events/s/e/0"),
        decoder=Decoder(replace(BRIEF, id_column=None), [VIEW], 1_000),
        ids=ids,
    )
    took(partition_worker, [message("a"), message("a")], 0, BASE, counts)
    assert counts.accepted == 2
    ids.set_source(BRIEF)
    other = opened(tmp_path, ids, "1")
    took(other, [message("a"), message("b")], 0, BASE + 1, counts)
    assert (counts.accepted, counts.duplicates) == (3, 1)
    ids.set_source(replace(BRIEF, dedupe_us=1))
    took(other, [message("a"), message("b")], 2, BASE + 2, counts)
    assert (counts.accepted, counts.duplicates) == (4, 2)
