"""The contract of the replay of Parquet files as a stream."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.clock import ManualClock
from skewless.contract.errors import DefinitionError, SourceError
from skewless.infra.ingest.streams.parquet_stream import ParquetStream
from skewless.infra.ingest.streams.port import Partition

START = datetime(2024, 1, 1, tzinfo=UTC)


class RecordingListener:
    def __init__(self, position: int | None = None) -> None:
        self.position = position
        self.owned: list[Partition] = []
        self.revocations: list[Partition] = []

    def on_assigned(self, partition: Partition) -> int | None:
        self.owned.append(partition)
        return self.position

    def on_revoked(self, partition: Partition) -> None:
        self.revocations.append(partition)

    def on_stepped_back(self, partition: Partition, last: str, first: int) -> set[int]:
        raise AssertionError((partition, last, first))


def write(path: Path, seconds: Sequence[float | None], first: int = 0) -> None:
    times = [None if s is None else START + timedelta(seconds=s) for s in seconds]
    rows = {"t": pa.array(times, pa.timestamp("us", "UTC")), "n": list(range(first, first + len(times)))}
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table(rows), path, row_group_size=100)


def drained(stream: ParquetStream, limit: int = 1_000) -> list[tuple[int, int]]:
    """Return the positions and numbers of all rows that are left."""
    found = list[tuple[int, int]]()
    while not stream.done:
        for messages in stream.poll(limit, 1.0):
            assert len(messages.positions) == len(messages.payloads) <= limit
            numbers = [json.loads(payload or b"")["n"] for payload in messages.payloads]
            found += zip(messages.positions, numbers, strict=True)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chance = random.Random(3)
    write(tmp_path / "b.parquet", [chance.randrange(1_000) for _ in range(6_000)], 3_000)
    write(tmp_path / "a" / "z.parquet", [chance.randrange(1_000) for _ in range(3_000)], 0)
    write(tmp_path / "c.parquet", [], 0)
    return tmp_path


def test_each_row_comes_once(folder: Path) -> None:
    stream = ParquetStream(folder, RecordingListener(), time_column="t")
    assert not stream.done
    rows = drained(stream)
    assert [position for position, _ in rows] == list(range(9_000))  # more than are read at once
    assert sorted(n for _, n in rows) == list(range(9_000))
    assert stream.poll(10, 1.0) == []
    assert stream.lag() == 0
    assert stream.trouble is None


def test_reading_goes_on_where_the_owner_says(folder: Path) -> None:
    whole = drained(ParquetStream(folder, RecordingListener(), time_column="t"))
    assert [at for at, _ in whole] == list(range(9_000))
    for position in (1, 2_999, 3_000, 8_192, 8_999, 9_000):
        rest = drained(ParquetStream(folder, RecordingListener(position), time_column="t"))
        assert rest == whole[position:], position


def test_rows_are_ordered_by_a_column_and_equal_ones_as_they_stand(folder: Path) -> None:
    table = pa.concat_tables([pq.read_table(folder / "a" / "z.parquet"), pq.read_table(folder / "b.parquet")])
    times = table["t"].to_pylist()
    expected = sorted(range(9_000), key=lambda n: (times[n], n))
    assert [n for _, n in drained(ParquetStream(folder, RecordingListener(), time_column="t"))] == expected


def test_a_row_is_json_with_times_in_utc(tmp_path: Path) -> None:
    naive, paris = datetime(2024, 5, 1, 12, 0, 0, 1), pa.array([START], pa.timestamp("ns", "Europe/Paris"))  # noqa: DTZ001
    row = {"naive": pa.array([naive]), "paris": paris, "x": [1.5], "none": pa.array([None], pa.int64()), "b": [b"\x00"]}
    pq.write_table(pa.table(row), tmp_path / "a.parquet")
    [messages] = ParquetStream(tmp_path / "a.parquet", RecordingListener(), time_column="paris").poll(10, 1.0)
    assert json.loads(messages.payloads[0] or b"") == {
        "naive": "2024-05-01T12:00:00.000001Z",
        "paris": "2024-01-01T00:00:00Z",
        "x": 1.5,
        "none": None,
        "b": "AA==",
    }


def test_rows_are_released_in_the_rhythm_of_their_times(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [None, 0, 10, 10, 30])
    clock = ManualClock(5_000_000)
    stream = ParquetStream(tmp_path, RecordingListener(), time_column="t", speed=10.0, clock=clock)
    released = list[int]()
    for now_s in (0.0, 0.999, 1.0, 2.5, 3.0):
        clock.set(5_000_000 + int(now_s * 1e6))
        released.append(sum(len(messages.positions) for messages in stream.poll(100, 0.0)))
    assert released == [2, 0, 2, 0, 1]
    assert stream.done


def test_what_is_due_is_returned_up_to_the_limit(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [n / 10 for n in range(100)])
    clock = ManualClock(0)
    stream = ParquetStream(tmp_path, RecordingListener(), time_column="t", speed=1.0, clock=clock)
    assert len(stream.poll(7, 0.0)[0].positions) == 1
    assert stream.lag() == 99
    clock.set(1_000_000_000)
    assert list(stream.poll(7, 0.0)[0].positions) == list(range(1, 8))


@pytest.mark.parametrize("limit", [7, 100, 1_000])
def test_8_4_files_are_drained_when_their_last_row_was_returned(tmp_path: Path, limit: int) -> None:
    write(tmp_path / "a.parquet", range(250))
    stream = ParquetStream(tmp_path, RecordingListener(), time_column="t")
    assert list(stream.find_drained()) == []
    assert stream.partition_names() == ["0"]
    while not stream.done:
        stream.poll(limit, 1.0)
        assert bool(stream.find_drained()) == stream.done
    assert [partition.name for partition in stream.find_drained()] == ["0"]
    stream.close()
    assert list(stream.find_drained()) == []


def test_8_4_a_row_that_is_not_due_has_not_arrived(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 10, 10, 30, 30])
    clock = ManualClock(0)
    stream = ParquetStream(tmp_path, RecordingListener(), time_column="t", speed=1.0, clock=clock)
    said = list[tuple[int, bool]]()
    for now_s, limit in ((0, 5), (9, 5), (10, 1), (10, 5), (29, 5), (30, 1), (30, 1)):
        clock.set(now_s * 1_000_000)
        n = sum(len(messages.positions) for messages in stream.poll(limit, 0.0))
        said.append((n, bool(stream.find_drained())))
    assert said == [(1, True), (0, True), (1, False), (1, True), (0, True), (1, False), (1, True)]


@pytest.mark.parametrize(
    "n",
    [300, 20_000],
)
def test_8_4_rows_that_are_due_but_lie_in_another_part_of_the_files_wait_too(tmp_path: Path, n: int) -> None:
    write(tmp_path / "a.parquet", [0] * n)
    stream = ParquetStream(tmp_path, RecordingListener(), time_column="t", speed=1.0, clock=ManualClock(0))
    while not stream.done:
        stream.poll(n, 0.0)
        assert bool(stream.find_drained()) == stream.done


def test_1_4_other_files_are_another_life(folder: Path) -> None:
    owners = [RecordingListener(), RecordingListener(), RecordingListener()]
    for owner in owners[:2]:
        stream = ParquetStream(folder, owner, time_column="t")
        stream.poll(1, 0.0)
        stream.close()
        stream.close()
        assert owner.revocations == owner.owned
    write(folder / "d.parquet", [1])
    ParquetStream(folder, owners[2], time_column="t").poll(1, 0.0)
    epochs = [owner.owned[0].epoch for owner in owners]
    assert epochs[0] == epochs[1] != epochs[2]


def test_files_may_be_named_by_a_glob_or_one_by_one(folder: Path) -> None:
    assert len(drained(ParquetStream(folder / "**" / "*.parquet", RecordingListener(), time_column="t"))) == 9_000
    assert len(drained(ParquetStream(folder / "b.parquet", RecordingListener(), time_column="t"))) == 6_000


def test_what_cannot_be_replayed_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no Parquet file"):
        ParquetStream(tmp_path, RecordingListener(), time_column="t")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(SourceError, match="cannot be read"):
        ParquetStream(tmp_path, RecordingListener(), time_column="t")
    write(tmp_path / "a.parquet", [1])
    with pytest.raises(SourceError, match="cannot be read"):
        ParquetStream(tmp_path, RecordingListener(), time_column="none").poll(1, 0.0)
    with pytest.raises(SourceError, match="is not a timestamp column"):
        ParquetStream(tmp_path, RecordingListener(), time_column="n", speed=1.0).poll(1, 0.0)
    with pytest.raises(DefinitionError, match="speed"):
        ParquetStream(tmp_path, RecordingListener(), time_column="t", speed=0.0)
