"""``skewless dataset``: the very bits of the training set, part by part, and nothing lost by an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.project import Project
from skewless.training import dataset_files
from skewless.training.dataset_files import DatasetFiles, open_dataset_files
from skewless.training.dataset_folder import DatasetFolder
from tests.worlds.command_line import done, fingerprint, run

PAYMENTS = "data/payments.parquet"


def written(out: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(out.glob("part-*.parquet"))])


def shown(table: pa.Table) -> str:
    """Return all values as text; NaN is NaN, and -0.0 is not 0.0."""
    return repr(table.to_pydict())


def words(repo: Path, entities: Path, out: Path) -> list[str | Path]:
    return [
        *("dataset", "--repo", repo, "--entities", entities),
        *("--service", "fraud_features", "--out", out, "--time", "paid_at"),
    ]


def numbers(column: pa.ChunkedArray, vocabulary: list[str] | None) -> npt.NDArray[np.float64]:
    """Return a column as the model would see it."""
    if vocabulary is not None:
        codes = {word: float(i) for i, word in enumerate(vocabulary)}
        return np.array([codes.get(word, np.nan) for word in column.to_pylist()])
    return np.array([np.nan if value is None else float(value) for value in column.to_pylist()])


@pytest.mark.parametrize("mode", ["knowledge", "event_time"])
def test_the_values_are_those_of_the_training_set(walked: Path, tmp_path: Path, mode: str) -> None:
    # In an order of its own, and each row twice.
    asked = pq.read_table(walked / PAYMENTS)
    shuffled = np.random.default_rng(3).permutation(np.repeat(np.arange(asked.num_rows), 2))
    pq.write_table(asked.take(shuffled), tmp_path / "asked.parquet", row_group_size=701)
    body = done(*words(walked, tmp_path / "asked.parquet", tmp_path / "out"), "--mode", mode)
    table = written(tmp_path / "out")
    assert table.select(asked.column_names).equals(asked.take(shuffled))
    assert body["rows"] == body["written"] == table.num_rows == 12_000
    assert body["columns"] == table.column_names
    with Project(walked) as project:
        dataset = project.training_set("fraud")
    if mode == "knowledge":
        keys = [(name, "ascending") for name in ("paid_at", "known_at", "card_id", "shop_id", "amount")]
        once = asked.append_column("i", pa.array(range(asked.num_rows))).sort_by(keys)["i"].to_numpy()
        at = np.argsort(once)[shuffled]
        for i, label in enumerate(dataset.names):
            words_of = dataset.vocabularies.get(label)
            found = numbers(table[label], None if words_of is None else list(words_of))
            assert found.tobytes() == dataset.matrix[at, i].tobytes(), label
    assert sum(body["status"]["card_days"].values()) == table.num_rows
    types = {name: str(table.schema.field(name).type) for name in dataset.names}
    assert types["card_days__payments_7d"] == "int64"
    assert types["card_days__country"] == "string"


def test_an_engine_writes_the_same_values(walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done(*words(walked, walked / PAYMENTS, tmp_path / "alone"))
    monkeypatch.setenv("SKEWLESS_ENGINE_ROWS", "0")
    monkeypatch.setenv("SKEWLESS_ENGINE_WORKERS", "2")
    done(*words(walked, walked / PAYMENTS, tmp_path / "engine"), "--engine", "processes")
    assert shown(written(tmp_path / "engine")) == shown(written(tmp_path / "alone"))
    with Project(walked) as project:
        assert (
            project.training_set("fraud").fingerprint
            == Project(walked, engine_workers=1).training_set("fraud").fingerprint
        )


def test_a_dry_run_writes_nothing_and_foresees(walked: Path, tmp_path: Path) -> None:
    before = fingerprint(tmp_path)
    line = words(walked, walked / PAYMENTS, tmp_path / "out")
    foreseen = done(*line, "--dry-run")
    assert fingerprint(tmp_path) == before
    real = done(*line)
    assert (foreseen.pop("dry_run"), real.pop("dry_run")) == (True, False)
    assert (foreseen.pop("status"), bool(real.pop("status"))) == ({}, True)
    assert foreseen == real
    again = run(*line)
    assert again.code == 0
    assert "0 of 6,000 rows written" in again.stdout


def test_csv_keys_keep_their_form_and_a_model_stands_for_its_service(walked: Path, tmp_path: Path) -> None:
    asked = pq.read_table(walked / PAYMENTS).slice(0, 50)
    text = asked.set_column(2, "paid_at", pc.strftime(asked["paid_at"], "%Y-%m-%dT%H:%M:%SZ"))
    pa_csv.write_csv(text, tmp_path / "asked.csv")
    pq.write_table(asked, tmp_path / "asked.parquet")
    line = words(walked, tmp_path / "asked.csv", tmp_path / "a")
    line[line.index("fraud_features")] = "fraud"
    done(*line)
    done(*words(walked, tmp_path / "asked.parquet", tmp_path / "b"))
    labels = [name for name in written(tmp_path / "b").column_names if "__" in name]
    assert shown(written(tmp_path / "a").select(labels)) == shown(written(tmp_path / "b").select(labels))


def files(project: Project, part_rows: int = 2_200) -> DatasetFiles:
    made = open_dataset_files(
        project.connection,
        project.views,
        project.applied,
        project.repo / PAYMENTS,
        "fraud_features",
        mode="knowledge",
        time_column="paid_at",
    )
    return DatasetFiles(
        connection=made.connection, views=made.views, plan=made.plan, entities=made.entities, part_rows=part_rows
    )


# In make test, before the first part, and between two.
@pytest.mark.parametrize("at", [pytest.param(at, marks=() if at in {0, 2} else pytest.mark.soak) for at in range(5)])
def test_an_interrupted_run_goes_on(walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The disk refuses each write of the manifest in turn; what stood before is not written again."""
    # Entity rows are sought part by part, so that a run goes on in the middle of the file.
    monkeypatch.setattr(dataset_files, "SEARCH_BYTES", 1)
    monkeypatch.setattr(dataset_files, "LEAST_ROWS", 1)
    real, calls = DatasetFolder._write_manifest, iter(range(99))

    def refuse(folder: DatasetFolder) -> None:
        if next(calls) == at:
            raise OSError(28, "full")
        real(folder)

    with Project(walked) as project:
        with monkeypatch.context() as patch:
            patch.setattr(DatasetFolder, "_write_manifest", refuse)
            with pytest.raises(StoreError):
                files(project).write(tmp_path / "out")
        stood = json.loads((tmp_path / "out/_dataset.json").read_text())["parts"] if at else []
        before = {part["name"]: (tmp_path / "out" / part["name"]).stat().st_ino for part in stood}
        for name in (".part-000002.parquet.tmp", "._dataset.json.tmp"):
            (tmp_path / "out" / name).write_text("cut sho")
        report = files(project).write(tmp_path / "out")
        whole = files(project).write(tmp_path / "whole")
    assert report.written == 6_000 - sum(part["rows"] for part in stood)
    assert (report.rows, report.parts, report.status) == (whole.rows, whole.parts, whole.status)
    assert {name: (tmp_path / "out" / name).stat().st_ino for name in before} == before
    assert shown(written(tmp_path / "out")) == shown(written(tmp_path / "whole"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_dataset.json",
        *(f"part-{i:06d}.parquet" for i in range(3)),
    ]


def test_the_folder_is_a_table_for_pyarrow_and_pandas(walked: Path, tmp_path: Path) -> None:
    report = done(*words(walked, walked / PAYMENTS, tmp_path / "out"), "--json")
    assert pads.dataset(tmp_path / "out").count_rows() == len(pd.read_parquet(tmp_path / "out")) == report["rows"]


def test_other_folders_are_left_alone(walked: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/_dataset.json").write_text("[]")
    for name in ("done", "robbed"):
        done(*words(walked, walked / PAYMENTS, tmp_path / name))
    (tmp_path / "robbed/part-000000.parquet").unlink()
    before = fingerprint(tmp_path)
    for name in ("mine", "odd", "mine/notes.txt", "robbed"):
        assert run(*words(walked, walked / PAYMENTS, tmp_path / name), "--json").code == 10
    other = run(*words(walked, walked / PAYMENTS, tmp_path / "done"), "--mode", "event_time", "--json")
    assert (other.code, other.body["error"]["problem"]) == (9, "has another dataset, which differs in mode")
    assert fingerprint(tmp_path) == before


def test_what_cannot_be_asked_is_refused_before_anything_is_written(walked: Path, tmp_path: Path) -> None:
    asked = pq.read_table(walked / PAYMENTS).slice(0, 5)
    late = asked.set_column(2, "paid_at", pa.array([None, *[0] * 4], pa.timestamp("us", tz="UTC")))
    cases = {
        "late": (late, "has null values"),
        "bare": (asked.drop_columns(["card_id"]), "has no such column"),
        "naive": (
            asked.set_column(2, "paid_at", asked["paid_at"].cast(pa.timestamp("us"))),
            "is a time without a zone",
        ),
        "taken": (asked.append_column("card_days__country", asked["fraud"]), "has a column with a reserved name"),
    }
    for name, (table, problem) in cases.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        said = run(*words(walked, tmp_path / f"{name}.parquet", tmp_path / "out"), "--json")
        assert (said.code, said.body["error"]["problem"]) == (4, problem)
    unknown = words(walked, walked / PAYMENTS, tmp_path / "out")
    unknown[unknown.index("fraud_features")] = "nothing"
    assert run(*unknown, "--json").code == 6
    assert run(*words(walked, tmp_path / "gone.parquet", tmp_path / "out"), "--json").code == 4
    assert not (tmp_path / "out").exists()
