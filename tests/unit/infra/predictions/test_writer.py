"""The log's files have the recorded rows, for each of their readers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.infra.log.spool import Spool
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions import writer as module
from skewless.infra.records.predictions.record import PredictionBatch
from skewless.infra.records.predictions.segments import SCHEMA, prediction_spool
from skewless.infra.records.predictions.writer import PredictionWriter
from tests.unit.infra.predictions.records import T, origin, record, rows_of, vector_record
from tests.worlds.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[4]


def no_drop(n: int, why: str) -> None:
    raise AssertionError((n, why))


def spool_in(root: Path) -> Spool:
    return prediction_spool(ProjectState(root))


def spooled(root: Path) -> list[Path]:
    """Return all files, temporary ones too."""
    return sorted(spool_in(root).folder.glob("*"))


def written(root: Path, *records: PredictionBatch) -> list[dict[str, Any]]:
    """Write records at once; return the rows of the files."""
    log = PredictionWriter(spool_in(root), capacity=10_000, flush_seconds=60, on_drop=no_drop)
    assert all(log.offer(each) for each in records)
    log.close()
    rows: list[dict[str, Any]] = []
    for path in spooled(root):
        table = pq.read_table(path)
        assert table.schema.equals(SCHEMA)
        rows += table.to_pylist()
    for row in rows:
        row["vector"] = [repr(value) for value in row["vector"]]
        assert {type(row.pop(name)) for name in ("file", "row", "rows", "checksum")} == {str, int}
    return sorted(rows, key=lambda row: str(row["id"]))


def expected(*records: PredictionBatch) -> list[dict[str, Any]]:
    return sorted((row for each in records for row in rows_of(each)), key=lambda row: str(row["id"]))


@pytest.mark.parametrize("piece", [1, 3, 1_000])
def test_records_become_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", piece)
    one, other = origin(), origin("000002", views=("card",))
    records = [record(one, 1, 1), record(other, 4, 2), record(one, 3, 3), vector_record(one, 2, 4), record(one, 1, 5)]
    assert written(tmp_path, *records) == expected(*records)
    assert len(spooled(tmp_path)) == 1


@pytest.mark.parametrize("piece", [1, 3, 1_000])
def test_rows_of_several_versions_have_the_columns_of_their_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", piece)
    champion = replace(origin(), policy=4)
    challenger = replace(champion, version="000002", runtime_id="other", tolerance=0.5, role="challenger")
    records = [
        record(champion, 5, 1)._replace(origins=[(challenger, 2), (champion, 3)]),
        record(champion, 1, 2)._replace(origins=[(champion, 1)]),
        record(champion, 4, 3)._replace(origins=[(challenger, 4)]),
        record(champion, 2, 4),
    ]
    rows = written(tmp_path, *records)
    assert rows == expected(*records)
    assert sum(row["version"] == "000002" for row in rows) == 6


def test_windowed_views_keep_generation_and_applied_positions(tmp_path: Path) -> None:
    of = origin(views=("card", "spend", "shop", "visits"))
    records = [record(of, n, n, windowed=("spend", "visits")) for n in (3, 1, 4)]
    assert written(tmp_path, *records) == expected(*records)


def test_several_outputs(tmp_path: Path) -> None:
    records = [record(origin(), n, n, outputs=3) for n in (1, 2)]
    rows = written(tmp_path, *records)
    assert rows == expected(*records)
    assert all(len(row["scores"]) == 3 for row in rows)


def test_a_model_without_views_and_transforms(tmp_path: Path) -> None:
    of = origin(views=())
    bare = replace(of, transform_hashes=())
    records = [record(bare, 2, 1)]
    assert written(tmp_path, *records) == expected(*records)


def test_duckdb_reads_the_same(tmp_path: Path) -> None:
    given = record(origin(views=("card", "spend")), 5, 1, windowed=("spend",))
    written(tmp_path, given)
    query = "SELECT id, reads[2].applied, reads[1].status, vector[1], model FROM read_parquet(?) ORDER BY id"
    files = [str(path) for path in spooled(tmp_path)]
    found = duckdb.execute(query, [files]).fetchall()
    want = [
        (row["id"], row["reads"][1]["applied"], row["reads"][0]["status"], float(row["vector"][0]), "fraud")
        for row in rows_of(given)
    ]
    assert repr(found) == repr(want)


def test_a_file_is_named_by_its_first_time(tmp_path: Path) -> None:
    written(tmp_path, record(origin(), 2, 3))
    (path,) = spooled(tmp_path)
    assert path.name.startswith(f"{T + 3_000:020d}-")


def test_a_full_ring_drops_whole_records_and_counts_them(tmp_path: Path) -> None:
    drops: list[tuple[int, str]] = []
    log = PredictionWriter(
        spool_in(tmp_path), capacity=5, flush_seconds=60, on_drop=lambda n, why: drops.append((n, why))
    )
    assert [log.offer(record(origin(), n, n)) for n in (3, 3, 2)] == [True, False, True]
    with pytest.raises(StoreError):
        log.require(record(origin(), 1, 9))
    log.close()
    assert not log.offer(record(origin(), 1, 10))
    assert drops == [(3, "full"), (1, "full"), (1, "full")]
    assert sum(pq.read_table(path).num_rows for path in spooled(tmp_path)) == 5


def test_what_is_required_is_durable_when_its_future_is_done(tmp_path: Path) -> None:
    log = PredictionWriter(spool_in(tmp_path), capacity=100, flush_seconds=60, on_drop=no_drop)
    log.offer(record(origin(), 1, 1))
    log.require(record(origin(), 2, 2)).result(PATIENCE_S)
    (path,) = spooled(tmp_path)
    assert pq.read_table(path)["id"].to_pylist() == ["1-0", "2-0", "2-1"]
    log.close()


def test_a_file_that_cannot_be_shipped_is_an_error_only_for_those_who_require_it(tmp_path: Path) -> None:
    calls: list[int] = []

    def ship() -> None:
        calls.append(len(spooled(tmp_path)))
        raise StoreError("database", "is down", fix="start it")

    log = PredictionWriter(spool_in(tmp_path), capacity=9, flush_seconds=60, on_drop=no_drop, on_stored=ship)
    log.offer(record(origin(), 1, 1))
    with pytest.raises(StoreError, match="database: is down"):
        log.require(record(origin(), 1, 2)).result(PATIENCE_S)
    assert log.problem is None
    log.close()
    assert calls[-1] == len(spooled(tmp_path))


def test_a_record_that_cannot_be_written_is_told_and_the_next_one_is_written(tmp_path: Path) -> None:
    drops: list[tuple[int, str]] = []
    log = PredictionWriter(
        spool_in(tmp_path), capacity=100, flush_seconds=60, on_drop=lambda n, why: drops.append((n, why))
    )
    broken = record(origin(), 2, 1)._replace(inputs=[b"one row too few"])
    with pytest.raises(StoreError, match="cannot store these predictions"):
        log.require(broken).result(PATIENCE_S)
    log.require(record(origin(), 1, 2)).result(PATIENCE_S)
    log.close()
    assert drops == [(2, "defect")]
    assert [pq.read_metadata(path).num_rows for path in spooled(tmp_path)] == [1]


def test_a_disk_that_refuses_is_told_and_counted(tmp_path: Path) -> None:
    drops: list[tuple[int, str]] = []
    (tmp_path / "spool").write_bytes(b"")
    log = PredictionWriter(
        spool_in(tmp_path), capacity=9, flush_seconds=60, on_drop=lambda n, why: drops.append((n, why))
    )
    with pytest.raises(StoreError):
        log.require(record(origin(), 2, 1)).result(PATIENCE_S)
    log.close()
    assert drops == [(2, "disk")]


def test_trouble_is_logged_once_names_no_folder_and_ends_without_a_prediction(tmp_path: Path) -> None:
    folder = spool_in(tmp_path).folder
    folder.parent.mkdir()
    folder.write_bytes(b"")
    with capture_logs() as logs:
        log = PredictionWriter(spool_in(tmp_path), capacity=9, flush_seconds=0.01, on_drop=lambda *_: None)
        for n in range(3):
            with pytest.raises(StoreError, match="prediction log: cannot be written") as caught:
                log.require(record(origin(), 1, n)).result(PATIENCE_S)
            assert str(tmp_path) not in caught.value.sentence()
            assert log.problem is not None
            assert log.problem in caught.value.sentence()
        folder.unlink()
        eventually(lambda: log.problem is None)
        log.close()
    assert [line["event"] for line in logs] == ["prediction_log_refused", "prediction_log_recovered"]
    assert logs[0]["folder"] == str(folder)
    assert list(folder.iterdir()) == []


def test_the_log_brings_no_pandas_into_the_server(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from tests.unit.infra.predictions import test_writer as t;"
        "before = set(sys.modules);"
        "made = [t.record(t.origin(views=('card', 'spend')), n, n, windowed=('spend',)) for n in (1, 2)];"
        "spool = t.spool_in(pathlib.Path(sys.argv[1]));"
        "log = t.PredictionWriter(spool, capacity=9, flush_seconds=60, on_drop=t.no_drop);"
        "[log.offer(each) for each in made]; log.close();"
        "print('pandas' in before, 'pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]
    assert pa.concat_tables([pq.read_table(path) for path in spooled(tmp_path)]).num_rows == 3
