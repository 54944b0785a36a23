"""Batch prediction of a folder: the rows of its files in order, in one process and by tasks, and its errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import PlaceError, RequestError, SkewlessError, SourceError
from skewless.infra.reads.engines.results import FOLDER
from skewless.serving import batch_files, batch_tasks
from skewless.serving.batch_files import open_input
from tests.nightly.integration.serving.core.test_batch_tasks import CHUNK, on_engine, rows_of
from tests.worlds.trained import MODEL, Sandbox

SIZES = {"b.parquet": 137, "a.parquet": 35, "c.parquet": 0, "d.parquet": 1}
ROWS = sum(SIZES.values())
ENGINES = pytest.mark.parametrize("engine_rows", [10_000_000, 0])
_OWN = ["id", "t_us"]


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_tasks, "_TASK_CHUNKS", 3)


@pytest.fixture
def days(tmp_path: Path) -> Path:
    """A folder of files with unequal row groups, written in another order than that of their names."""
    folder, table, at = tmp_path / "days", rows_of(ROWS), 0
    folder.mkdir()
    for name, rows in sorted(SIZES.items()):
        pq.write_table(table.slice(at, rows), folder / name, row_group_size=23)
        at += rows
    (folder / "_SUCCESS").touch()
    (folder / ".a.parquet.crc").write_bytes(b"x")
    return folder


def read(path: Path) -> pa.Table:
    return pq.read_table(path).drop_columns(_OWN)


@pytest.fixture
def whole(place: Sandbox, tmp_path: Path) -> pa.Table:
    """The predictions of one file with all rows."""
    pq.write_table(rows_of(ROWS), tmp_path / "all.parquet")
    with on_engine(place, engine_rows=10_000_000) as project:
        project.predict_file(MODEL, tmp_path / "all.parquet", tmp_path / "expected.parquet")
    return read(tmp_path / "expected.parquet")


@ENGINES
def test_a_folder_is_predicted_like_one_file(
    place: Sandbox, days: Path, whole: pa.Table, tmp_path: Path, engine_rows: int
) -> None:
    with on_engine(place, engine_rows=engine_rows) as project:
        assert project.predict_file(MODEL, days, tmp_path / "out.parquet") == ROWS
        assert read(tmp_path / "out.parquet").equals(whole)
        assert project.predict_file(MODEL, days, tmp_path / "scored") == ROWS
        assert list(project.state.storage.list_objects(FOLDER)) == []
    assert sorted(path.name for path in (tmp_path / "scored").iterdir()) == ["a.parquet", "b.parquet", "d.parquet"]
    parts = [read(path) for path in sorted((tmp_path / "scored").iterdir())]
    assert [part.num_rows for part in parts] == [35, 137, 1]
    assert pa.concat_tables(parts).equals(whole)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_chunks_on_an_engine_are_those_of_one_process(place: Sandbox, days: Path, tmp_path: Path) -> None:
    sizes = []
    for engine_rows in (10_000_000, 0):
        with on_engine(place, engine_rows=engine_rows) as project:
            project.predict_file(MODEL, days, tmp_path / "out.parquet")
        metadata = pq.read_metadata(tmp_path / "out.parquet")
        sizes.append([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)])
    assert sizes[0] == [10, 10, 10, 5, *[10] * 13, 7, 1]
    assert sizes[1] == sizes[0]


@ENGINES
def test_csv_files_give_csv_files(
    place: Sandbox, days: Path, whole: pa.Table, tmp_path: Path, engine_rows: int
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for path in sorted(days.glob("*.parquet")):
        table = pq.read_table(path).drop_columns(["note"])
        times = table["paid_at"].cast(pa.timestamp("us", tz="UTC"))
        table = table.set_column(table.column_names.index("paid_at"), "paid_at", times)
        pa_csv.write_csv(table, texts / path.with_suffix(".csv").name)
    with on_engine(place, engine_rows=engine_rows) as project:
        assert project.predict_file(MODEL, texts, tmp_path / "scored") == ROWS
    paths = sorted((tmp_path / "scored").iterdir())
    assert [path.name for path in paths] == ["a.csv", "b.csv", "d.csv"]
    scores = [score for path in paths for score in pa_csv.read_csv(path)["score"].to_pylist()]
    assert scores == whole["score"].to_pylist()


@pytest.mark.parametrize("amount", ["1_000", "\u0661", "1,000", "0x10", "inf", "true"])
def test_a_number_of_a_csv_file_is_not_guessed(place: Sandbox, days: Path, tmp_path: Path, amount: str) -> None:
    table = pq.read_table(days / "a.parquet").slice(0, 1).drop_columns(["note", "amount"])
    times = table["paid_at"].cast(pa.timestamp("us", tz="UTC"))
    table = table.set_column(table.column_names.index("paid_at"), "paid_at", times)
    pa_csv.write_csv(table.append_column("amount", pa.array([amount])), tmp_path / "in.csv")
    with pytest.raises(RequestError, match="field 'amount': is not a valid float64"):
        place.project.predict_file(MODEL, tmp_path / "in.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_file_is_neither_its_own_target_nor_is_a_folder(place: Sandbox, days: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    shutil.copy(days / "a.parquet", source)
    before = source.read_bytes()
    (tmp_path / "folder.parquet").mkdir()
    for target, problem in ((source, "is the input, or in its folder"), (tmp_path / "folder.parquet", "is a folder")):
        with pytest.raises(PlaceError, match=f"{target.name}: {problem}. Fix: choose a"):
            place.project.predict_file(MODEL, source, target)
    assert source.read_bytes() == before


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\xff", "card_id,\xe9\n1,2\n".encode("latin1"), b"a,a\n1,2\n"])
def test_a_header_that_is_not_text_or_has_a_name_twice_is_refused(place: Sandbox, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.csv").write_bytes(data)
    with pytest.raises(SourceError, match=r"in\.csv: (cannot be read|has two columns with one name)"):
        place.project.predict_file(MODEL, tmp_path / "in.csv", tmp_path / "out.csv")


def test_1_1_a_time_without_a_zone_is_refused_in_every_kind_of_file(place: Sandbox, days: Path, tmp_path: Path) -> None:
    table = pq.read_table(days / "a.parquet").slice(0, 1).drop_columns(["note"])
    times = table["paid_at"].cast(pa.timestamp("us"))
    pq.write_table(table.set_column(table.column_names.index("paid_at"), "paid_at", times), tmp_path / "in.parquet")
    with pytest.raises(RequestError, match=r"field 'paid_at': is not a valid timestamp .*Fix: add the zone"):
        place.project.predict_file(MODEL, tmp_path / "in.parquet", tmp_path / "out.parquet")


def _empty(folder: Path) -> None:
    for path in folder.glob("*.parquet"):
        path.unlink()


def _drop_rows(folder: Path) -> None:
    for path in folder.glob("*.parquet"):
        pq.write_table(pq.read_table(path).slice(0, 0), path)


def _retype(folder: Path) -> None:
    table = pq.read_table(folder / "b.parquet")
    pq.write_table(table.set_column(2, "amount", table["amount"].cast(pa.string())), folder / "b.parquet")


def _drop_column(folder: Path) -> None:
    for path in folder.glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["amount"]), path)


def _drop_column_of_one(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "d.parquet").drop_columns(["note"]), folder / "d.parquet")


def _damage(folder: Path) -> None:
    (folder / "b.parquet").write_bytes(b"garbage")


def _damage_pages(folder: Path) -> None:
    data = bytearray((folder / "b.parquet").read_bytes())
    data[4:600] = bytes(596)
    (folder / "b.parquet").write_bytes(data)


def _add_text(folder: Path) -> None:
    (folder / "notes.txt").touch()


def _add_folder(folder: Path) -> None:
    (folder / "day=1").mkdir()


def _add_csv(folder: Path) -> None:
    (folder / "b.csv").touch()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_empty, r"folder .*days: has no files\. Fix"),
        (_drop_rows, r"folder .*days: has no rows\."),
        (_retype, r"file .*days/b\.parquet: has other columns than a\.parquet \(got 'amount: string, not amount: dou"),
        (_drop_column_of_one, r"file .*days/d\.parquet: has other columns than a\.parquet \(got 'no column, not note"),
        (_drop_column, r"folder .*days: lacks a column \(got 'amount'\)"),
        (_damage, r"file .*days/b\.parquet: cannot be read"),
        (_damage_pages, r"file .*days/b\.parquet: cannot be read"),
        (_add_text, r"folder .*days: has an entry that is not a Parquet or CSV file \(got 'notes\.txt'\)"),
        (_add_folder, r"folder .*days: has an entry that is not a Parquet or CSV file \(got 'day=1'\)"),
        (_add_csv, r"folder .*days: has both Parquet and CSV files \(got 'a\.parquet and b\.csv'\)"),
    ],
)
def test_an_invalid_folder_fails_alike(
    place: Sandbox, days: Path, tmp_path: Path, change: Callable[[Path], None], says: str
) -> None:
    change(days)
    problems: list[dict[str, object]] = []
    for rows in (10_000_000, 0):
        # Errors of tasks come out of other processes in test_batch_tasks.py.
        with (
            on_engine(place, workers=1, engine_rows=rows) as project,
            pytest.raises(SkewlessError, match=says) as caught,
        ):
            project.predict_file(MODEL, days, tmp_path / "scored")
        assert isinstance(caught.value, SourceError)
        problems.append({**caught.value.as_dict(), "problem": caught.value.problem.partition(" (task predict-")[0]})
    assert problems[0] == problems[1]
    assert sorted(path.name for path in tmp_path.iterdir() if "scored" in path.name) == []


def test_a_target_must_be_new_and_elsewhere(place: Sandbox, days: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with on_engine(place) as project:
        for target, problem in (
            (days, "is the input, or in its folder"),
            (days / "out.parquet", "is the input, or in its folder"),
            (tmp_path / "full", "is not empty"),
            (tmp_path / "file", "is a file"),
            (tmp_path / "no/out", "does not exist"),
        ):
            with pytest.raises(PlaceError, match=problem):
                project.predict_file(MODEL, days, target)
        assert project.predict_file(MODEL, days, tmp_path / "empty") == ROWS
    assert len(list((tmp_path / "empty").iterdir())) == 3


@ENGINES
def test_a_file_that_changes_meanwhile_is_an_error(
    place: Sandbox, days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_rows: int
) -> None:
    def touch_then_check(*args: object) -> None:
        os.utime(days / "b.parquet", (0, 0))
        check(*args)  # type: ignore[arg-type]

    check = batch_files.check_target
    for module in (batch_files, batch_tasks):
        monkeypatch.setattr(module, "check_target", touch_then_check)
    with on_engine(place, engine_rows=engine_rows) as project:
        with pytest.raises(SourceError, match=r"days/b\.parquet: has changed since the command has begun"):
            project.predict_file(MODEL, days, tmp_path / "scored")
        assert not (tmp_path / "scored").exists()


def test_ranges_of_a_file_are_its_rows(days: Path) -> None:
    file = open_input(days).files[1]
    table = pq.read_table(file.path)
    for first, end in ((0, 137), (0, 1), (20, 60), (23, 46), (136, 137), (45, 47)):
        chunks = list(batch_files.read_range(file, first, end, CHUNK))
        assert pa.concat_tables(chunks).equals(table.slice(first, end - first))
        assert [chunk.num_rows for chunk in chunks[:-1]] == [CHUNK] * (len(chunks) - 1)
