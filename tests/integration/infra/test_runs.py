"""SEMANTICS 2.6: the ledger of materialization runs, in a project of any age."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skewless.contract.errors import ConflictError
from skewless.infra.log.runs import Coverage, Kind, RunLedger
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import open_database
from skewless.infra.platform.storage.schema import COVERAGE_SUM, RUN_SUM
from tests.servers.postgres import ON_SQLITE
from tests.worlds.ledger_runs import KnownRange, MaterializationRun, known_ranges, read_runs, to_list

PARTITION = "batch/v-0123456789abcdef"
_OTHERS = ("batch/V", "batch/ä", "a")


def test_2_6_a_run_begins_once_and_ends_once(project_database: Database) -> None:
    ledger = RunLedger(project_database)
    assert read_runs(project_database) == []
    first, second = ledger.start(10), RunLedger(project_database).start(11)
    assert (first, second) == (1, 2)
    assert read_runs(project_database) == [MaterializationRun(1, 10), MaterializationRun(2, 11)]
    covers = {PARTITION: Coverage(first=0, last=4, kind="live")}
    ledger.finish(second, covers, 20)
    # A later record for the same positions changes nothing.
    RunLedger(project_database).finish(second, {}, 99)
    assert read_runs(project_database) == [
        MaterializationRun(1, 10),
        MaterializationRun(run_id=2, started_us=11, ended_us=20, covers=covers),
    ]


def test_2_6_racing_starts_get_ids_of_their_own(project_database: Database) -> None:
    def start(now_us: int) -> int:
        try:
            return RunLedger(project_database).start(now_us)
        finally:
            project_database.close()

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(start, range(12)))
    assert sorted(ids) == list(range(1, 13))
    assert [run.run_id for run in read_runs(project_database)] == sorted(ids)


def test_2_6_a_run_that_failed_early_leaves_its_id(project_database: Database) -> None:
    ledger = RunLedger(project_database)
    first, ended = ledger.start(1), MaterializationRun(1, 1, ended_us=2)
    ledger.finish(first, {}, 2)
    second = ledger.start(3)
    assert read_runs(project_database) == [ended, MaterializationRun(second, 3)]
    ledger.withdraw(second)
    ledger.withdraw(first)  # it has ended, so it stays
    assert read_runs(project_database) == [ended]
    again = ledger.start(5)
    ledger.finish(again, {}, 6)
    assert again == second
    assert read_runs(project_database) == [ended, MaterializationRun(again, 5, ended_us=6)]


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
    assert read_runs(project_database) == [MaterializationRun(run, 1), MaterializationRun(later, 2)]
    ledger.finish(later, {}, 4, held)
    assert read_runs(project_database)[-1] == MaterializationRun(later, 2, ended_us=4)


def run(run_id: int, ended: int | None, first: int = 0, last: int = -1, kind: Kind = "live") -> MaterializationRun:
    covers = {} if ended is None else {PARTITION: Coverage(first=first, last=last, kind=kind)}
    return MaterializationRun(run_id=run_id, started_us=0, ended_us=ended, covers=covers)


def write_runs(database: Database, runs: list[MaterializationRun]) -> None:
    ledger = RunLedger(database)
    for each in runs:
        begun = ledger.start(each.started_us, each.skew_us)
        if each.ended_us is not None:
            ledger.finish(begun, each.covers, each.ended_us)


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
    tmp_path: Path, runs: list[MaterializationRun], ranges: Expected
) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'skewless.db'}")
    write_runs(database, runs)
    ledger = RunLedger(database)
    expected = [KnownRange(first=first, last=last, kind=kind, ended_us=ended) for first, last, kind, ended in ranges]
    assert to_list(ledger.known_ranges(PARTITION)) == known_ranges(runs, PARTITION) == expected
    assert to_list(ledger.known_ranges("batch/other")) == []


_COVERS = st.dictionaries(
    st.sampled_from([PARTITION, *_OTHERS]),
    st.builds(
        lambda first, rows, kind: Coverage(first, first + rows - 1, kind),
        st.integers(0, 9),
        st.integers(0, 4),
        st.sampled_from(["live", "bootstrap"]),
    ),
    max_size=3,
)
_HISTORIES = st.lists(
    st.tuples(_COVERS, st.sampled_from(["finish", "finish", "crash", "withdraw"]), st.integers(-3, 9)), max_size=8
)


@ON_SQLITE
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=_HISTORIES)
def test_2_6_all_answers_follow_from_the_runs(
    project_database: Database, history: list[tuple[dict[str, Coverage], str, int]]
) -> None:
    for table in ("coverage", "materializations"):
        project_database.execute(f"DELETE FROM {table}")
    follower = RunLedger(project_database)
    for number, (covers, end, shift) in enumerate(history):
        begun = follower.start(10 * number + shift, skew_us=number)
        check_answers(follower, project_database)
        if end == "finish":
            follower.finish(begun, covers, 10 * number - shift)
        elif end == "withdraw":
            follower.withdraw(begun)
        for ledger in (follower, RunLedger(project_database)):
            check_answers(ledger, project_database)


def check_answers(ledger: RunLedger, database: Database) -> None:
    runs = read_runs(database)
    finished = [each for each in runs if each.ended_us is not None]
    assert ledger.last_finished() == max((each.run_id for each in finished), default=0)
    times = ledger.times()
    assert list(zip(*(column.tolist() for column in times), strict=True)) == [
        (each.run_id, each.started_us, each.skew_us, each.ended_us is not None, each.ended_us or 0) for each in runs
    ]
    covered = {name: max(each.covers[name].last for each in runs if name in each.covers) for name in names(runs)}
    assert ledger.last_positions() == covered
    for name in (PARTITION, *_OTHERS):
        assert ledger.last_position(name) == covered.get(name)
        ends = [each.ended_us for each in runs if name in each.covers]
        assert ledger.last_end_us(name) == (ends[-1] if ends else None)
        for upto in (None, 0, 2, 99):
            some = [each for each in runs if upto is None or each.run_id <= upto]
            assert to_list(ledger.known_ranges(name, upto)) == known_ranges(some, name)
        for count in (1, 2, 99):
            recent, whole = to_list(ledger.recent_ranges(name, count)), known_ranges(runs, name)
            lasts = sorted((each.covers[name].last for each in runs if name in each.covers), reverse=True)
            after = lasts[count] if len(lasts) > count else -1
            clipped = [each._replace(first=max(each.first, after + 1)) for each in whole if each.last > after]
            assert recent == clipped


def names(runs: list[MaterializationRun]) -> set[str]:
    return {name for each in runs for name in each.covers}


def test_a_long_ledger_answers_by_its_indexes(project_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with project_database.transaction():
        for table, columns in (
            ("materializations", "n, n, 0, CASE WHEN n % 100 = 0 THEN NULL ELSE n END, 1, 0"),
            ("coverage", "'batch/view' || (n % 10), n, n * 5, n * 5 + 4, 'live', n, 0"),
        ):
            project_database.execute(
                "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000) "
                f"INSERT INTO {table} SELECT {columns} FROM numbers" + " WHERE n % 100 <> 0" * (table == "coverage")
            )
    for table, checksum in (("materializations", RUN_SUM), ("coverage", COVERAGE_SUM)):
        project_database.execute(f"UPDATE {table} SET checksum = {checksum.sql}")
    project_database.execute("ANALYZE")
    plans, query = list[str](), project_database.query
    explain = "EXPLAIN QUERY PLAN" if (is_sqlite := "skewless.db" in project_database.name) else "EXPLAIN"

    def explained(sql: str, *values: object) -> object:
        plans.extend(str(row[-1]) for row in query(f"{explain} {sql}", *values))  # type: ignore[arg-type]
        return query(sql, *values)  # type: ignore[arg-type]

    ledger = RunLedger(project_database)
    known, times = ledger.known_ranges("batch/view3"), ledger.times()  # the first time they read what they return
    assert (len(known.last), len(times.run_id)) == (2_000, 20_000)
    monkeypatch.setattr(project_database, "query", explained)
    assert ledger.known_ranges("batch/view3") is known
    assert len(ledger.times().run_id) == 20_000
    assert ledger.last_finished() == 19_999
    assert ledger.last_positions()["batch/view3"] == ledger.last_position("batch/view3") == 19_993 * 5 + 4
    assert ledger.last_end_us("batch/view3") == 19_993
    assert ledger.recent_ranges("batch/view3", 3).run_id.tolist() == [19_973, 19_983, 19_993]
    latest = ledger.start(1)
    assert latest == 20_001
    ledger.finish(latest, {}, 2)
    assert plans
    for plan in plans:
        assert "Seq Scan" not in plan, plans
        if is_sqlite:
            assert not plan.startswith(("SCAN coverage", "SCAN materializations")), plans
            assert "TEMP B-TREE" not in plan, plans
