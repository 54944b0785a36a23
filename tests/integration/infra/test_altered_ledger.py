"""SEMANTICS 2.6, 1.4: a row of runs, coverage or segments that was altered or lost is named, not used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import StoreError
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.holes import check_holes
from skewless.infra.log.runs import Coverage, RunLedger
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.row_checksum import RowChecksum
from skewless.infra.platform.storage.schema import COVERAGE_SUM, RUN_SUM, SEGMENT_SUM, STEPS
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from skewless.operations.health.checkup.project import check_logs

VIEWS = ("batch/v-0123456789abcdef", "batch/w-0123456789abcdef")
LOG = "events/shop/1"
# Every column of a checksum, and how a fault alters it.
ALTERED = [
    *(("coverage", name) for name in ("run_id", "first_position", "last_position", "kind", "ended_us")),
    *(("materializations", name) for name in ("started_us", "skew_us", "ended_us", "covered")),
    *(("segments", name) for name in ("first_seq", "last_seq", "at_us", "known_us", "is_merged", "is_proven")),
]
FAULTS = {
    "seven more": "{} + 7",
    "one bit": "{} + 1073741824",
    "negative": "-{} - 7",
    "another clock": "{} - 7200000000",
}
TEXT_FAULTS = {"seven more": "'bootstrap'"}


def write(database: Database) -> None:
    """Write three finished runs and one that runs, and segments of which all but one are applied."""
    ledger, catalog = RunLedger(database), Catalog(database)
    for i in range(3):
        run_id = ledger.start(1_700_000_000_000_000 + i, skew_us=-i)
        covers = {view: Coverage(first=5 * i, last=5 * i + 4, kind="live") for view in VIEWS}
        ledger.finish(run_id, covers, 1_700_000_001_000_000 + i)
        stored = StoredObject(f"log/{i}.parquet", 1, "stamp", "digest")
        catalog.append(LOG, stored, 10, began_at=2e9, at_us=1_700_000_000_000_000 + i)
    catalog.record_end(LOG, 9, 19, 1_700_000_002_000_000)
    catalog.mark_proven(LOG, ["log/1.parquet"])
    ledger.start(1_700_000_003_000_000)
    ledger.restore_start(4, 1_700_000_002_500_000)


def read_all(database: Database) -> list[object]:
    """Read what the tables say, as their readers do."""
    ledger, catalog = RunLedger(database), Catalog(database)
    ledger.check_all()
    ranges = [[column.tolist() for column in ledger.known_ranges(view)] for view in VIEWS]
    recent = [[column.tolist() for column in ledger.recent_ranges(view, 2)] for view in VIEWS]
    segments = catalog.segments(LOG)
    check_holes(LOG, segments, 0, catalog.next_seq(LOG) - 1)
    return [ranges, recent, [column.tolist() for column in ledger.times()], segments]


def test_2_6_what_writers_write_is_intact(project_database: Database) -> None:
    write(project_database)
    ranges, _, times, segments = read_all(project_database)
    assert ranges[0][1:3] == [[0, 5, 10], [4, 9, 14]]  # type: ignore[index]
    assert times[1][3] == 1_700_000_002_500_000  # type: ignore[index]
    assert [(item.known_us, item.is_proven) for item in segments] == [  # type: ignore[attr-defined]
        (1_700_000_002_000_000, False),
        (1_700_000_002_000_000, True),
        (None, False),
    ]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("table", "column"), ALTERED)
def test_2_6_each_altered_number_is_named(project_database: Database, table: str, column: str, fault: str) -> None:
    write(project_database)
    new = (TEXT_FAULTS if column == "kind" else FAULTS).get(fault, "'other'").format(column)
    first = {"coverage": "run_id = 2", "materializations": "run_id = 2", "segments": "first_seq = 10"}[table]
    project_database.execute(f"UPDATE {table} SET {column} = {new} WHERE {first}")
    with pytest.raises(StoreError, match=r"(was altered|lacks rows) in the database|has a hole|has rows twice"):
        read_all(project_database)


@pytest.mark.parametrize(
    "lost", ["coverage WHERE run_id = 2 AND partition < 'batch/w'", "materializations WHERE run_id = 1"]
)
def test_2_6_each_missing_row_is_named(project_database: Database, lost: str) -> None:
    write(project_database)
    project_database.execute(f"DELETE FROM {lost}")
    with pytest.raises(StoreError, match=r"run [12]: lacks rows in the database. Fix: restore"):
        read_all(project_database)


@pytest.mark.parametrize("table", ["coverage", "segments"])
def test_2_6_a_later_change_does_not_hide_an_altered_row(project_database: Database, table: str) -> None:
    write(project_database)
    project_database.execute("UPDATE materializations SET started_us = started_us + 9 WHERE run_id = 4")
    project_database.execute("UPDATE segments SET at_us = at_us + 9 WHERE first_seq = 20")
    ledger, catalog = RunLedger(project_database), Catalog(project_database)
    ledger.finish(4, {}, 1_700_000_004_000_000)
    catalog.record_end(LOG, 29, 29, 1_700_000_004_000_000)
    catalog.mark_proven(LOG, ["log/2.parquet"])
    with pytest.raises(StoreError, match="was altered"):
        ledger.times() if table == "coverage" else catalog.segments(LOG)


def test_2_6_the_doctor_names_the_altered_run(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    write(state.database)
    state.database.execute("DELETE FROM segments")
    state.database.execute("DELETE FROM log_partitions WHERE partition <> 'batch/none'")
    state.database.execute("INSERT INTO log_partitions VALUES ('batch/none', 0, '')")
    assert [item.verdict for item in check_logs(state)] == ["ok", "ok"]
    state.database.execute("UPDATE coverage SET ended_us = ended_us + 1 WHERE run_id = 3 AND partition = ?", VIEWS[1])
    (finding,) = [item for item in check_logs(state) if item.verdict == "fail"]
    assert finding.name == "ledger of runs"
    assert "run 3" in finding.detail


def test_tables_without_checksums_get_them(tmp_path: Path) -> None:
    """A database of the first schema is as one that was written with checksums."""
    path = tmp_path / "old.db"
    new = SqliteDatabase(tmp_path / "new.db")
    write(new)
    old = SqliteDatabase(path, STEPS[:1])
    with old.transaction():
        for table in ("materializations", "coverage", "segments", "log_partitions"):
            names = [str(row[1]) for row in old.query(f"PRAGMA table_info({table})")]
            for row in new.query(f"SELECT {', '.join(names)} FROM {table}"):
                old.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)
    old.close()
    upgraded = SqliteDatabase(path)
    assert upgraded.upgrade() == 1
    assert read_all(upgraded) == read_all(new)
    for table in ("materializations", "coverage", "segments"):
        assert upgraded.query(f"SELECT * FROM {table}") == new.query(f"SELECT * FROM {table}")


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = SqliteDatabase(tmp_path_factory.mktemp("sum") / "sum.db")
    write(database)  # it has no file before
    yield database
    database.close()


@given(st.lists(st.none() | st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=8))
def test_the_database_computes_the_checksum_that_a_writer_does(memory: Database, values: list[int | None]) -> None:
    texts = [f"CAST({'NULL' if value is None else value} AS BIGINT)" for value in values]
    ((found,),) = memory.query(f"SELECT {RowChecksum(*texts).sql}")
    assert found == RowChecksum(*texts).compute(*values)


def test_each_checksum_has_a_weight_for_each_column() -> None:
    for checksum in (COVERAGE_SUM, RUN_SUM, SEGMENT_SUM):
        assert len(checksum.columns) <= 8
        assert len({checksum.compute(*(int(i == j) for j in range(6))) for i in range(6)}) == 6
