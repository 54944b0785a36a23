"""Files that a machine has not shipped yet: a kill, an outage or a second process neither loses nor repeats a row."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.infra.log.compaction import compact
from skewless.infra.log.spool import CORRUPT, ShippedFiles, Shipper, Spool
from skewless.infra.platform.storage.project_state import ProjectState
from tests.integration.infra.log_victims import SCHEMA, LogVictims
from tests.integration.infra.partition_logs import fill_disk, listed, objects, opened, rows, sweep, values
from tests.worlds.waiting import until
from tools.postgres_server import PostgresServer

LOG = "spooled"


def store(spool: Spool, *batches: int, writer: str | None = None) -> str:
    """Store a file of two rows for each number."""
    spool.writer = writer or uuid.uuid4().hex[:12]
    for spool.number in batches:
        spool.store(spool.number, rows(10 * spool.number, 10 * spool.number + 1))
    return spool.writer


def spooled(state: ProjectState, partition: str = LOG) -> Spool:
    return Spool(state, partition, SCHEMA)


def test_files_are_shipped_in_the_order_of_each_writer(log_state: ProjectState) -> None:
    spool = spooled(log_state)
    assert (spool.waiting(), spool.ship()) == ([], 0)
    store(spool, 1, 0, 2)
    store(spool, 3)
    (spool.folder / "notes.parquet").write_text("of a user")
    assert [int(path.stem[-6:]) for path in spool.waiting() if path.stem[-1] != "3"] == [0, 1, 2]
    assert spool.ship() == 4
    assert sorted(values(opened(log_state, LOG))) == [0, 1, 10, 11, 20, 21, 30, 31]
    assert [value for value in values(opened(log_state, LOG)) if value < 30] == [0, 1, 10, 11, 20, 21]
    assert opened(log_state, LOG).schema() == SCHEMA
    assert sorted(segment.at_us for segment in opened(log_state, LOG).segments()) == [2, 3]
    assert (spool.waiting(), spool.ship()) == ([], 0)
    assert objects(log_state) == listed(log_state)


@pytest.mark.parametrize("is_merged", [False, True])
def test_4_2_a_kill_at_any_step_of_shipping_neither_loses_nor_repeats_a_row(
    killed_state: ProjectState, victims: LogVictims, monkeypatch: pytest.MonkeyPatch, *, is_merged: bool
) -> None:
    """Also if the shipped segment was merged with others, and its object deleted, in between; or new files came."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    sizes = []
    for step in count(1):
        partition = f"{LOG}/{step}"
        spool = spooled(killed_state, partition)
        first, second = (f"{letter}{step:011x}" for letter in "ab")
        store(spool, 0, 1, writer=first)
        store(spool, 2, writer=second)
        was_killed = victims.run("ship", killed_state, partition, step)
        sizes.append(len(values(opened(killed_state, partition))))
        assert sizes[-1] in {0, 4, 6}
        if is_merged:
            compact(opened(killed_state, partition), keep=0, group=lambda _: LOG)
            sweep(killed_state)
        store(spool, 3, writer=first)
        spool.ship()
        assert sorted(values(opened(killed_state, partition))) == [0, 1, 10, 11, 20, 21, 30, 31]
        assert spool.waiting() == []
        if not was_killed:
            break
    assert sizes == sorted(sizes)
    assert (set(sizes), len(sizes) >= 16) == ({0, 4, 6}, True)


def test_4_2_processes_that_ship_the_same_files_ship_each_once(log_state: ProjectState, victims: LogVictims) -> None:
    spool = spooled(log_state)
    for _ in range(4):
        store(spool, *range(10))
    processes = [victims.start("ship", log_state, LOG) for _ in range(2)]
    spool.ship()
    for process in processes:
        victims.wait(process)
    assert sorted(values(opened(log_state, LOG))) == sorted([*range(0, 100, 10), *range(1, 100, 10)] * 4)
    assert spool.waiting() == []
    assert objects(log_state) == listed(log_state)


def test_a_file_that_its_own_process_ships_alone_is_not_read(
    log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading took as long as writing, beside the requests of a server."""
    spool, read = spooled(log_state), count()
    parquet_file = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path: (next(read), parquet_file(path))[1])
    store(spool, 0)
    assert (spool.ship(), next(read)) == (1, 0)
    store(spool, 1, 2)
    assert (spool.ship(), next(read)) == (2, 3)
    monkeypatch.undo()
    assert sorted(values(opened(log_state, LOG))) == [0, 1, 10, 11, 20, 21]


def test_a_corrupt_file_stops_no_other_and_is_shipped_when_it_is_restored(log_state: ProjectState) -> None:
    spool = spooled(log_state)
    for damage in (lambda data: data[:-9], lambda _: b"", lambda _: b"x" * 100):
        store(spool, 0, 1)
        first, _ = spool.waiting()
        data = first.read_bytes()
        first.write_bytes(damage(data))
        before = values(opened(log_state, LOG))
        spool.ship()
        assert (spool.waiting(), values(opened(log_state, LOG))) == ([], [*before, 10, 11])
        (corrupt,) = spool.folder.glob(f"*{CORRUPT}")
        corrupt.unlink()
        first.write_bytes(data)
        for _ in range(2):
            spool.ship()
            assert values(opened(log_state, LOG)) == [*before, 10, 11, 0, 1]


def test_a_writer_is_forgotten_90_days_after_its_last_file(
    log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, shipped, day_us = spooled(log_state), ShippedFiles(log_state.database), 86_400_000_000
    now_us = log_state.database.now_us()
    old, young = store(spool, 0), uuid.uuid4().hex[:12]
    spool.ship()
    monkeypatch.setattr(type(log_state.database), "now_us", lambda _: now_us + 89 * day_us)
    shipped.prune()
    store(spool, 1, writer=young)
    spool.ship()
    assert not shipped.is_new(old, 0)
    monkeypatch.setattr(type(log_state.database), "now_us", lambda _: now_us + 91 * day_us)
    shipped.prune()
    assert (shipped.is_new(old, 0), shipped.is_new(young, 1)) == (True, False)
    assert sorted(values(opened(log_state, LOG))) == [0, 1, 10, 11]


def test_a_full_disk_leaves_no_part_of_a_file(log_state: ProjectState, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spooled(log_state)
    monkeypatch.setattr(os, "fsync", fill_disk)
    with pytest.raises(StoreError, match="No space left on device"):
        store(spool, 0)
    monkeypatch.undo()
    assert list(spool.folder.iterdir()) == []
    store(spool, 0)
    monkeypatch.setattr(os, "link", fill_disk)
    with pytest.raises(StoreError, match="No space left on device"):
        spool.ship()
    monkeypatch.undo()
    assert spool.ship() == 1
    assert values(opened(log_state, LOG)) == [0, 1]


@contextmanager
def shipping(*spools: Spool) -> Iterator[Shipper]:
    shipper = Shipper(spools)
    try:
        yield shipper
    finally:
        shipper.close()


def test_a_shipper_ships_what_it_is_woken_for_and_the_rest_when_it_closes(log_state: ProjectState) -> None:
    spools = [spooled(log_state, name) for name in (f"{LOG}/a", f"{LOG}/b")]
    with shipping(*spools) as shipper:
        for spool in spools:
            store(spool, 0)
        shipper.wake()
        until(lambda: not any(spool.waiting() for spool in spools))
        store(spools[1], 0)
    assert shipper.problem is None
    assert [len(values(opened(log_state, f"{LOG}/{name}"))) for name in "ab"] == [2, 4]


def test_files_wait_while_the_database_is_away_and_are_shipped_when_it_is_back(
    own_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.log.spool._LONGEST_PAUSE_S", 0.2)
    state = ProjectState(tmp_path, own_postgres.start())
    spool = spooled(state)
    with shipping(spool) as shipper:
        writer = store(spool, 0)
        shipper.wake()
        until(lambda: not spool.waiting())
        own_postgres.stop()
        state.database.close()
        store(spool, 1, 2, writer=writer)
        shipper.wake()
        until(lambda: shipper.problem)
        assert "database" in str(shipper.problem)
        assert len(spool.waiting()) == 2
        own_postgres.start()
        until(lambda: not spool.waiting())
        until(lambda: shipper.problem is None)
    assert values(opened(state, LOG)) == [0, 1, 10, 11, 20, 21]
    assert objects(state) == listed(state)
    state.database.close()


def test_a_server_without_the_project_keeps_its_latest_files_alone(tmp_path: Path) -> None:
    state = ProjectState(tmp_path / "state")
    spool, other = spooled(state), spooled(state)
    store(other, 5)
    store(spool, 1, 2, 3, 4)
    size = max(path.stat().st_size for path in spool.waiting())
    shipper = Shipper([spool], keep_bytes=3 * size)
    until(lambda: len(spool.waiting()) == 3)
    assert sorted(int(path.name[:20]) for path in spool.waiting()) == [3, 4, 5]
    # The next look follows after 60 files.
    store(spool, *range(6, 64))
    assert spool.trim(0) == 0
    store(spool, 64, 65)
    shipper.wake()
    shipper.close()
    assert len(spool.waiting()) == 3
    assert opened(state, LOG).segments() == []


def test_a_large_file_of_this_object_is_shipped_alone_and_not_read_again(
    log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.log.spool._LARGE_ROWS", 3)
    spool = spooled(log_state)
    for number, n in enumerate((1, 3, 2, 2, 4)):
        spool.store(number, rows(*range(10 * number, 10 * number + n)))
    read: list[str] = []
    parquet_file = pq.ParquetFile

    def note_reads(path: Path) -> object:
        read.append(path.stem[-6:])
        return parquet_file(path)

    monkeypatch.setattr("pyarrow.parquet.ParquetFile", note_reads)
    assert spool.ship() == 5
    assert sorted(read) == ["000000", "000002", "000003"]
    monkeypatch.undo()
    assert [segment.rows for segment in opened(log_state, LOG).segments()] == [1, 3, 4, 4]
    assert values(opened(log_state, LOG)) == [0, 10, 11, 12, 20, 21, 30, 31, 40, 41, 42, 43]


def test_a_large_file_whose_shipment_failed_is_read_at_the_next(
    log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.log.spool._LARGE_ROWS", 1)
    spool = spooled(log_state)
    spool.store(0, rows(1, 2))
    with monkeypatch.context() as broken:
        broken.setattr(Spool, "_ship", lambda *_: fail_to_ship())
        with pytest.raises(StoreError, match="planted"):
            spool.ship()
    assert spool.ship() == 1
    assert values(opened(log_state, LOG)) == [1, 2]


def fail_to_ship() -> None:
    raise StoreError("storage", "planted", fix="remove it")
