"""SEMANTICS 4.2: removed objects stay while a process may read them, and objects of killed appends are found."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest

from skewless.contract.errors import StoreError
from skewless.infra.log import readers
from skewless.infra.log.catalog import ORPHAN_AGE_US, Catalog
from skewless.infra.log.compaction import CompactionReport, compact
from skewless.infra.log.log_columns import INGEST
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.readers import list_readers
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import PREDICTIONS
from tests.integration.infra.log_victims import LogVictims
from tests.integration.infra.partition_logs import (
    PARTITION,
    fill,
    listed,
    objects,
    opened,
    read,
    rows,
    sweep,
    values,
)
from tests.worlds.waiting import until


def test_the_ends_of_the_partitions_of_a_source(log_state: ProjectState) -> None:
    catalog = Catalog(log_state.database)
    assert (catalog.partitions(), catalog.ends("events/s")) == ([], {})
    for name, size in (("events/s/e/0", 2), ("events/s/e/1", 1), ("events/s2/e/0", 3), ("events/S/e/0", 1)):
        fill(opened(log_state, name), size)
    assert catalog.ends("events/s") == {"events/s/e/0": 1, "events/s/e/1": 0}
    assert catalog.partitions() == ["events/S/e/0", "events/s/e/0", "events/s/e/1", "events/s2/e/0"]
    assert catalog.next_seq("events/s/e/9") == 0
    assert catalog.last_applied(["events/s/e/0"]) == {"events/s/e/0": -1}


def test_expired_segments_are_removed(log_state: ProjectState) -> None:
    partition_log = opened(log_state, PREDICTIONS)
    for at_us in (10, 20, 30):
        partition_log.append(rows(at_us).append_column(INGEST, pa.array([at_us], pa.int64())))
    assert partition_log.catalog.remove_before(PREDICTIONS, 30, None) == 2
    assert [segment.at_us for segment in partition_log.segments()] == [30]
    assert (values(partition_log), partition_log.next_seq()) == ([30], 3)
    sweep(log_state)
    assert objects(log_state) == listed(log_state)


@pytest.mark.parametrize("is_paused", [False, True])
def test_4_2_removed_objects_stay_until_each_reader_of_that_time_has_ended(
    partition_log: PartitionLog, log_state: ProjectState, victims: LogVictims, *, is_paused: bool
) -> None:
    fill(partition_log, 1, 1, 1, known_us=1)
    reader = victims.start("read", log_state, PARTITION)
    try:
        until((log_state / "listed").exists)
        (name,) = list_readers(log_state.database)
        before = objects(log_state)
        compact(partition_log, keep=0)
        if is_paused:
            os.kill(reader, signal.SIGSTOP)
            # For longer than its lease.
            log_state.database.execute("UPDATE leases SET until_us = 1 WHERE name = ?", name)
        sweep(log_state)
        assert before < objects(log_state)
        assert list_readers(log_state.database) == [name]
    finally:
        victims.end(reader)
    assert list_readers(log_state.database) == []
    sweep(log_state)
    assert objects(log_state) == listed(log_state)
    assert values(partition_log) == [0, 1, 2]


def test_4_2_a_reader_of_another_machine_counts_until_its_lease_expires(
    partition_log: PartitionLog, log_state: ProjectState
) -> None:
    fill(partition_log, 1, 1, known_us=1)
    leases = Leases(log_state.database)
    lease = leases.acquire("log reader h/other/1/ab", holder="h/other/1/ab")
    assert lease is not None
    compact(partition_log, keep=0)
    later = leases.acquire("log reader h/other/2/cd", holder="h/other/2/cd")
    sweep(log_state)
    assert len(objects(log_state)) == 3
    leases.release(lease)
    sweep(log_state)
    # The later reader has never seen the removed objects.
    assert list_readers(log_state.database) == [later.name if later else ""]
    assert objects(log_state) == listed(log_state)


def test_a_process_registers_once_and_again_after_it_has_lost_its_lease(
    partition_log: PartitionLog, log_state: ProjectState
) -> None:
    fill(partition_log, 1)
    for _ in range(2):
        partition_log.files()
    (name,) = list_readers(log_state.database)
    log_state.database.execute("UPDATE leases SET holder = 'h/other/1/ab'")
    renewal = readers._renewals[os.getpid(), id(log_state.database)]
    assert not renewal.renew()
    partition_log.files()
    assert len(list_readers(log_state.database)) == 2
    assert name in list_readers(log_state.database)


def age(path: Path, age_us: int) -> None:
    at = time.time() - age_us / 1e6
    os.utime(path, (at, at))


def test_4_2_objects_of_killed_appends_are_found_and_those_of_logs_and_recent_ones_are_not(
    partition_log: PartitionLog, log_state: ProjectState
) -> None:
    fill(partition_log, 1, 1, known_us=1)
    compact(partition_log, keep=0)
    old, recent = (log_state.storage.put(partition_log.object_name(2), b"x").name for _ in range(2))
    for name in objects(log_state) - {recent}:
        age(log_state / name, ORPHAN_AGE_US + 1_000_000)
    before_us = int(time.time() * 1e6) - ORPHAN_AGE_US
    catalog = Catalog(log_state.database)
    assert catalog.find_orphans(log_state.storage, "log", before_us) == [old]
    assert catalog.find_orphans(log_state.storage, "log/events/arrivals/ab12cd/1", before_us) == []
    assert values(partition_log) == [0, 1]


def test_4_2_an_append_that_was_paused_until_its_object_may_be_gone_is_refused(
    partition_log: PartitionLog, log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(partition_log, 1, 1, known_us=1)
    real, ages = time.time, list[float]()

    def pause() -> float:
        ages.append(2 * 3_600)
        return real() + sum(ages)

    monkeypatch.setattr(time, "time", pause)
    with pytest.raises(StoreError, match=r"was paused for \d+ s in a write"):
        partition_log.append(rows(9))
    with partition_log.stage_rows() as staged:
        staged.write(rows(9))
        with pytest.raises(StoreError, match="was paused for"):
            partition_log.commit_rows(staged)
    with pytest.raises(StoreError, match="was paused for"):
        compact(partition_log, keep=0)
    monkeypatch.undo()
    assert len(sweep(log_state)) == 3
    assert compact(partition_log, keep=0) == CompactionReport(merged=2, written=1, rows=2)
    fill(partition_log, 1)
    assert [row["x"] for row in read(partition_log)] == [0, 1, 2]
