"""The logs of older releases are in the catalog after an upgrade, with the same rows and known times."""

from __future__ import annotations

import json
import sqlite3
import tarfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.offline.log_parts import AppliedBatches, read_log_partitions
from skewless.infra.outcomes.log import SCHEMA as OUTCOMES
from skewless.infra.outcomes.log import OutcomeLog, compact_outcomes
from skewless.infra.predictions.segments import PREDICTIONS, compact_predictions
from skewless.infra.storage.documents import Documents
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.storage.schema import STEPS
from skewless.operations import old_logs
from skewless.operations.checkup.project import check_logs
from skewless.operations.upgrade import UpgradeReport, upgrade_state

WORLDS = Path(__file__).parents[2] / "worlds"
# The logs as release 71dd42d wrote them, next to its small files; and as ee076095 did, with a database of schema 1.
LAYOUTS = {"files": ("older_state.tar.xz", "older_logs.tar.xz"), "schema 1": ("old_logs.tar.xz",)}
STREAM = "events/payments/3f2a9c01ab"
_LATER = 2_000_000_000_000_000


@pytest.fixture(params=LAYOUTS)
def logged_before(request: pytest.FixtureRequest, tmp_path: Path) -> ProjectState:
    """The state of a project with logs of each kind: with gaps, merged and proven files, and leftovers of kills."""
    for name in LAYOUTS[request.param]:
        with tarfile.open(WORLDS / name) as archive:
            archive.extractall(tmp_path / "state", filter="data")
    return ProjectState(tmp_path / "state")


def read_values(state: ProjectState) -> dict[str, Any]:
    """Return the contents of all logs, as the old release wrote them to ``expected.json``."""
    logs = [PartitionLog(state, name) for name in Catalog(state.database).partitions()]
    with duckdb.connect() as connection:
        outcomes = OutcomeLog(state, connection)
        applied = {
            part.partition: AppliedBatches.read(connection, part) for part in read_log_partitions(state, "payments")
        }
        return {
            "partitions": {
                log.partition: [
                    list(row.values()) for rows in log.read(columns=["x", SEQ, KNOWN_AT]) for row in rows.to_pylist()
                ]
                for log in logs
                if "/" in log.partition
            },
            "applied": {name: _at_ends_of_batches(each) for name, each in applied.items()},
            "predictions": [
                [each, segment.is_proven]
                for segment in Catalog(state.database).segments(PREDICTIONS)
                for each in pq.read_table(state / segment.stored.name)["id"].to_pylist()
            ],
            "outcomes": [outcomes.counts(_LATER).as_dict(), outcomes.latest(_LATER).select(OUTCOMES.names).to_pylist()],
        }


def _at_ends_of_batches(applied: AppliedBatches) -> list[list[int]]:
    """Return what the old release knew: the times of a batch, not of the parts that became known before its end."""
    is_last = np.append(np.diff(applied.ingested_us) != 0, True)
    return [each[is_last].tolist() for each in (applied.last, applied.ingested_us, applied.ended_us)]


def expected(state: ProjectState) -> dict[str, Any]:
    values = json.loads((state / "expected.json").read_bytes())
    assert isinstance(values, dict)
    return values


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_logs_have_the_values_that_the_old_release_read(logged_before: ProjectState) -> None:
    before = names(logged_before.folder)
    dry = upgrade_state(logged_before, dry_run=True)
    assert names(logged_before.folder) - before <= {"skewless.db-wal", "skewless.db-shm"}
    report = upgrade_state(logged_before)
    assert report.imported == dry.imported
    assert report.imported["segments of logs"] == 25
    assert read_values(logged_before) == expected(logged_before)
    assert not Documents(logged_before.database, "proven_files").list_all()
    segments = [
        each
        for name in Catalog(logged_before.database).partitions()
        for each in Catalog(logged_before.database).segments(name)
    ]
    data = {name for name in names(logged_before.folder) if name.endswith((".parquet", ".tmp"))}
    assert data == {segment.stored.name for segment in segments}
    assert {finding.verdict for finding in check_logs(logged_before)} == {"ok"}
    rest = names(logged_before.folder) - data
    moved = {"manifest.json", "ends.bin", "all.list", "0.list"}
    assert moved <= {Path(name).name for name in rest if name.startswith("before-upgrade/")}
    assert not [name for name in rest if not name.startswith("before-upgrade/") and Path(name).name in moved]
    assert not list(logged_before.folder.glob("*.files"))
    assert upgrade_state(logged_before) == UpgradeReport(schema_before=report.schema)
    assert read_values(logged_before) == expected(logged_before)


# In make test, of one layout: both are the same logs once they are imported.
@pytest.mark.parametrize(
    "logged_before", [pytest.param("files", marks=pytest.mark.soak), "schema 1"], indirect=["logged_before"]
)
def test_the_imported_logs_can_be_written_and_merged(logged_before: ProjectState) -> None:
    upgrade_state(logged_before)
    for name in Catalog(logged_before.database).partitions():
        log = PartitionLog(logged_before, name)
        if name.startswith("events/"):
            end = log.next_seq()
            (rows,) = log.read(end - 1, columns=[column for column in log.schema().names if column != SEQ])
            assert log.append(rows).first == end
            compact(log, keep=1)
    compact_predictions(logged_before, _LATER)
    compact_outcomes(logged_before)
    values, old = read_values(logged_before), expected(logged_before)
    for name, rows in old["partitions"].items():
        known = [[x, seq, at] for (x, seq, at) in values["partitions"][name][: len(rows)]]
        assert known == rows, name
    assert sorted(values["predictions"]) == sorted(old["predictions"])
    assert values["outcomes"] == old["outcomes"]


# In make test, two points are of each layout: what comes after the reading is the same code.
@pytest.mark.parametrize(
    ("logged_before", "point"),
    [
        pytest.param(layout, point, marks=pytest.mark.soak if (i + j) % 2 else ())
        for i, point in enumerate(("_import_all", "_move", "remove_leftovers", "adopt"))
        for j, layout in enumerate(LAYOUTS)
    ],
    indirect=["logged_before"],
)
def test_a_killed_import_of_logs_is_run_again(
    logged_before: ProjectState, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ImportKilled(BaseException):
        """The end of the process."""

    def killed(*_: object) -> None:
        raise ImportKilled

    place = {"adopt": "skewless.infra.log.catalog.Catalog.", "remove_leftovers": "skewless.operations.old_logs."}
    with monkeypatch.context() as patch:
        patch.setattr(f"{place.get(point, 'skewless.operations.upgrade.')}{point}", killed)
        with pytest.raises(ImportKilled):
            upgrade_state(logged_before)
    if point in {"_import_all", "adopt"}:
        assert logged_before.unchecked_database.schema_version() < len(STEPS), "no process can begin with empty logs"
    upgrade_state(logged_before)
    assert read_values(logged_before) == expected(logged_before)
    assert not list(logged_before.folder.glob("*.files"))


def _remove(path: Path) -> None:
    path.unlink()


def _alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    ("log/batch/card_days-41680bd7e8103439/00000000000000000003.parquet", _remove, "is missing"),
    ("log/batch/card_days-41680bd7e8103439/00000000000000000003.parquet", _alter, "is corrupt"),
    (f"log/{STREAM}/4/c00000000000000000000-00000000000000000007.parquet", _remove, "is missing"),
    (f"log/{STREAM}/4/manifest.json", _remove, "is missing"),
    (f"log/{STREAM}/4/manifest.json", _alter, "is corrupt"),
    (f"log/{STREAM}/0/ends.bin", _remove, "is missing"),
    (f"log/{STREAM}/0/ends.bin", _alter, "is corrupt"),
    ("predictions/*-merged-*.parquet", _cut, "is corrupt"),
    ("predictions/*-000007.parquet", _remove, "is missing"),
    ("outcomes/*-merged.parquet", _alter, "is corrupt"),
    ("outcomes/*-merged.parquet", _remove, "is missing"),
]


# In make test, of one layout: the files of both are read by the same code.
@pytest.mark.parametrize(
    "logged_before", [pytest.param("files", marks=pytest.mark.soak), "schema 1"], indirect=["logged_before"]
)
def test_a_missing_or_altered_file_is_named_and_nothing_is_imported(logged_before: ProjectState) -> None:
    """Each damage after the other: what one of them imported, the next would find."""
    for name, damage, message in DAMAGE:
        path = max(logged_before.folder.glob(name))
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(StoreError, match=f"{path.name}: {message}"):
            upgrade_state(logged_before)
        assert logged_before.unchecked_database.schema_version() < len(STEPS)
        path.write_bytes(whole)
    upgrade_state(logged_before)
    assert read_values(logged_before) == expected(logged_before)


def test_an_upgrade_of_logs_under_a_running_process_is_refused(tmp_path: Path) -> None:
    with tarfile.open(WORLDS / "old_logs.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")

    def beat(at_s: float) -> None:
        with closing(sqlite3.connect(tmp_path / "skewless.db", isolation_level=None)) as database:
            values = ("process", "server-host-1-ab", 1, json.dumps({"beat_s": at_s}))
            database.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", values)

    state = ProjectState(tmp_path)
    beat(time.time())
    with pytest.raises(ConflictError, match="project: has a running server"):
        upgrade_state(state)
    beat(time.time() - 11)
    upgrade_state(state)
    assert read_values(state) == expected(state)
    Documents(state.database, "process").put("server-host-1-ab", {"beat_s": time.time()})
    upgrade_state(state)


def test_logs_of_files_are_imported_into_postgres_and_a_cloud(
    tmp_path: Path, postgres_url: str, bucket_url: str
) -> None:
    for name in LAYOUTS["files"]:
        with tarfile.open(WORLDS / name) as archive:
            archive.extractall(tmp_path, filter="data")
    url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema=upgrade_{uuid.uuid4().hex}"
    state = ProjectState(tmp_path, url, bucket_url)
    upgrade_state(state)
    old, logs = expected(state), PartitionLog(state, f"{STREAM}/0")
    rows = [row for table in logs.read(columns=["x", SEQ, KNOWN_AT]) for row in table.to_pylist()]
    assert [list(row.values()) for row in rows] == old["partitions"][logs.partition]
    assert {finding.verdict for finding in check_logs(state)} == {"ok"}
    assert len(list(state.storage.list_objects("log"))) == 18


def test_an_object_that_waits_to_be_shipped_is_not_imported(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    _ = state.database.schema_version()
    for folder in (tmp_path / "predictions", tmp_path / "spool/predictions"):
        folder.mkdir(parents=True)
        (folder / f"{5:020d}-3f2a91c07b5d-000000.parquet").write_bytes(b"whatever")
    assert not old_logs.read_old_logs(state)
