"""SEMANTICS 2.6: the ledger of materializations begins and ends each run once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError
from skewless.infra.log.runs import (
    Coverage,
    Kind,
    KnownRange,
    MaterializationRun,
    RunLedger,
    known_ranges,
    last_by_partition,
    last_covered,
)
from skewless.infra.storage.database import Database
from skewless.infra.storage.leases import Leases
from skewless.infra.storage.project_state import open_database

PARTITION = "batch/v-0123456789abcdef"


def test_2_6_a_run_begins_once_and_ends_once(project_database: Database) -> None:
    ledger = RunLedger(project_database)
    assert ledger.runs() == []
    first, second = ledger.start(10), RunLedger(project_database).start(11)
    assert (first.run_id, second.run_id) == (1, 2)
    assert ledger.runs() == [first, second]
    covers = {PARTITION: Coverage(first=0, last=4, kind="live")}
    ledger.finish(second, covers, 20)
    # A later record for the same positions changes nothing.
    RunLedger(project_database).finish(second, {}, 99)
    for reader in (ledger, RunLedger(project_database)):
        assert reader.runs() == [first, MaterializationRun(run_id=2, started_us=11, ended_us=20, covers=covers)]


def test_2_6_racing_starts_get_ids_of_their_own(project_database: Database) -> None:
    def start(now_us: int) -> int:
        try:
            return RunLedger(project_database).start(now_us).run_id
        finally:
            project_database.close()

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(start, range(12)))
    assert sorted(ids) == list(range(1, 13))
    assert [run.run_id for run in RunLedger(project_database).runs()] == sorted(ids)


def test_2_6_a_run_that_failed_early_leaves_its_id(project_database: Database) -> None:
    ledger = RunLedger(project_database)
    ended = ledger.finish(ledger.start(1), {}, 2)
    second = ledger.start(3)
    assert ledger.runs() == [ended, second]
    ledger.withdraw(second)
    ledger.withdraw(ended)  # it has ended, so it stays
    assert ledger.runs() == [ended]
    again = ledger.finish(ledger.start(5), {}, 6)
    assert again.run_id == second.run_id
    assert ledger.runs() == [ended, again]


def test_2_6_a_run_that_lost_its_lease_records_nothing(project_database: Database) -> None:
    leases, ledger = Leases(project_database, ttl_s=0.05), RunLedger(project_database)
    lost = leases.acquire("materialize", holder="elsewhere-1")
    run = ledger.start(1, lease=lost)
    time.sleep(0.1)
    held = leases.acquire("materialize", holder="elsewhere-2")
    later = ledger.start(2, lease=held)
    writes: list[Callable[[], object]] = [
        lambda: ledger.start(3, lease=lost),
        lambda: ledger.finish(run, {PARTITION: Coverage(first=0, last=4, kind="live")}, 3, lost),
        lambda: ledger.withdraw(run, lost),
    ]
    for write in writes:
        with pytest.raises(ConflictError, match="lease 'materialize' with token 1: was lost to elsewhere-2"):
            write()
    assert ledger.runs() == [run, later]
    assert ledger.finish(later, {}, 4, held) == ledger.runs()[-1]


def test_2_6_many_runs_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.log.runs._BATCH_RUNS", 3)
    database = open_database(f"sqlite:///{tmp_path / 'skewless.db'}")
    ledger, follower = RunLedger(database), RunLedger(database)
    for n in range(8):
        run = ledger.start(n)
        if n % 2:
            ledger.finish(run, {f"p{n}": Coverage(first=0, last=n, kind="live")}, n)
        assert follower.runs() == RunLedger(database).runs()
    assert last_by_partition(follower.runs()) == {"p1": 1, "p3": 3, "p5": 5, "p7": 7}
    assert [each.run_id for each in ledger.read_from(6)] == [6, 7, 8]


def run(run_id: int, ended: int | None, first: int = 0, last: int = -1, kind: Kind = "live") -> MaterializationRun:
    covers = {} if ended is None else {PARTITION: Coverage(first=first, last=last, kind=kind)}
    return MaterializationRun(run_id=run_id, started_us=0, ended_us=ended, covers=covers)


Expected = list[tuple[int, int, Kind, int]]


@pytest.mark.parametrize(
    ("runs", "ranges"),
    [
        ([], []),
        ([run(1, None)], []),
        ([run(1, 5, 0, 3, "bootstrap"), run(2, 9, 4, 6)], [(0, 3, "bootstrap", 5), (4, 6, "live", 9)]),
        # A run that covered rows again, as after a lost Redis, moves nothing.
        ([run(1, 5, 0, 3), run(2, 9, 0, 6)], [(0, 3, "live", 5), (4, 6, "live", 9)]),
        ([run(1, 5, 0, 3), run(2, 9, 0, 3)], [(0, 3, "live", 5)]),
        ([run(1, 5, 0, 3), run(2, None), run(3, 9, 4, 6)], [(0, 3, "live", 5), (4, 6, "live", 9)]),
        # Nothing to cover on the first run.
        ([run(1, 5, 0, -1, "bootstrap"), run(2, 9, 0, 1)], [(0, 1, "live", 9)]),
        # A clock that was set back between two runs loses no row.
        ([run(1, 9, 0, 3), run(2, 5, 4, 6)], [(0, 3, "live", 9), (4, 6, "live", 5)]),
    ],
)
def test_2_6_each_position_belongs_to_the_first_run_that_ended_with_it(
    runs: list[MaterializationRun], ranges: Expected
) -> None:
    expected = [KnownRange(first=first, last=last, kind=kind, ended_us=ended) for first, last, kind, ended in ranges]
    for order in (runs, runs[::-1]):
        assert known_ranges(order, PARTITION) == expected
    assert known_ranges(runs, "batch/other") == []
    assert last_covered(runs, PARTITION) == max((one.last for one in expected), default=-1)


def test_the_covered_positions_are_plain_json(project_database: Database) -> None:
    ledger = RunLedger(project_database)
    ledger.finish(ledger.start(1), {"p": Coverage(first=0, last=1, kind="live")}, 2)
    ((*numbers, covers),) = project_database.query("SELECT * FROM materializations")
    assert numbers == [1, 1, 0, 2]
    assert json.loads(covers) == {"p": {"first": 0, "last": 1, "kind": "live"}}
