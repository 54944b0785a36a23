"""The positions that a log says were applied, while the database comes and goes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.contract.keys import marker_key
from skewless.contract.plan import FeaturePlan
from skewless.infra.log.generations import Generations
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.runs import Coverage, RunLedger
from skewless.infra.platform.storage.database import Row, Value
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from skewless.infra.reads.online.marker_history import LogPositions, MarkerHistory
from skewless.infra.reads.online.port import Marker
from tests.worlds.plans import make_view
from tests.worlds.streams import VIEW as WINDOW

VIEW = make_view()


def plan_of(*, windows: bool) -> FeaturePlan:
    return FeaturePlan(
        project="p", views=(VIEW,), request=(), transforms=(), services=(), windows=(WINDOW,) if windows else ()
    )


def cover(state: ProjectState, last: int) -> None:
    ledger = RunLedger(state.database)
    ledger.finish(ledger.start(1), {VIEW.partition: Coverage(first=0, last=last, kind="live")}, 2)


def lose(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[Row]:
        raise StoreError("database", "is unavailable", fix="start it")

    monkeypatch.setattr(SqliteDatabase, "query", fail)


def test_4_5_positions_follow_the_ledger(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    positions = LogPositions(state)
    positions.add_plan(plan_of(windows=True))
    assert list(positions.read().values()) == [-1]
    assert list(tmp_path.iterdir()) == []  # a read creates nothing
    for last in (4, 9, 9, 12):
        cover(state, last)
        RunLedger(state.database).start(3)
        assert list(positions.read().values()) == [last]
    RunLedger(state.database).finish(RunLedger(state.database).start(4), {}, 5)
    assert list(positions.read().values()) == [12]


def test_4_5_the_last_positions_count_while_the_database_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ProjectState(tmp_path)
    cover(state, 4)
    positions = LogPositions(state)
    positions.add_plan(plan_of(windows=False))
    before = positions.read()
    with monkeypatch.context() as patch, capture_logs() as logs:
        lose(patch)
        assert [positions.read() for _ in range(3)] == [before] * 3
        positions.add_plan(plan_of(windows=True))
        with pytest.raises(StoreError, match="unavailable"):
            positions.read()  # nothing is known about the new view
    assert [entry["event"] for entry in logs] == ["log_positions_not_read"]
    Generations(state).begin(WINDOW, ["a"], 1)
    cover(state, 7)
    assert set(positions.read().values()) == {7}


def test_4_5_a_database_that_was_never_available_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    positions = LogPositions(ProjectState(tmp_path))
    positions.add_plan(plan_of(windows=False))
    lose(monkeypatch)
    with pytest.raises(StoreError, match="unavailable"):
        positions.read()


def test_4_5_a_marker_that_the_log_never_had_is_forgotten_and_a_true_one_is_not(tmp_path: Path) -> None:
    state, name = ProjectState(tmp_path), marker_key("p", VIEW)
    log = PartitionLog(state, VIEW.partition)
    log.append(pa.table({"x": [1, 2, 3]}))
    cover(state, 1)
    history = MarkerHistory.from_runs(state, [plan_of(windows=False)])

    def find_lost(position: int) -> set[str]:
        return history.find_lost([name], [Marker(position)])

    assert not find_lost(2)  # a run writes before it is recorded
    history.refresh()
    assert find_lost(1) == {name}
    assert not find_lost(9_000)  # of a corrupt store
    assert find_lost(2) == {name}
    history.refresh()
    assert not find_lost(2)  # repaired
    assert find_lost(1) == {name}


def test_all_partitions_are_read_with_one_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, names = ProjectState(tmp_path), [f"events/{WINDOW.source}/e/{number}" for number in range(3)]
    generations, query, asked = Generations(state), SqliteDatabase.query, list[str]()
    generations.switch(WINDOW, generations.begin(WINDOW, names, 1).number, 2)
    for name in names[:2]:
        log = PartitionLog(state, name)
        log.append(pa.table({"x": [1, 2]}))
        log.record_end(0, 1, 5)
    positions = LogPositions(state)
    positions.add_plan(plan_of(windows=True))

    def count(database: SqliteDatabase, sql: str, *values: Value) -> list[Row]:
        asked.extend([sql] if "segments" in sql else [])
        return query(database, sql, *values)

    monkeypatch.setattr(SqliteDatabase, "query", count)
    assert sorted(positions.read().values()) == [-1, 1, 1]
    assert len(asked) == 1
