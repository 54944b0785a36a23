"""Batch prediction by tasks: the file of one process, whatever is killed, and no file if a row is invalid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from lightgbm import Booster

from skewless.contract.errors import PlaceError, RequestError, SkewlessError, SourceError, StoreError
from skewless.infra.reads.engines.engine import Engine
from skewless.infra.reads.engines.processes import ProcessExecutor
from skewless.infra.reads.engines.results import FOLDER
from skewless.project import Project
from skewless.serving import batch_tasks
from skewless.serving.batch import BatchPredictor
from skewless.serving.prediction.scored_batch import ScoredSlice
from tests.worlds.killer import killing_workers
from tests.worlds.trained import MODEL, Sandbox, ask, opened_copy
from tests.worlds.workers import WORKERS, TwiceExecutor

ROWS = 317
CHUNK = 10  # rows; 32 chunks
FIRST = 200  # of the cards; those from 400 on have no row
_OWN = ["id", "t_us"]  # of the columns, those that differ by run


@contextmanager
def on_engine(place: Sandbox, workers: int = 2, **settings: object) -> Iterator[Project]:
    """The project as another process would open it, with all its large work on an engine."""
    given = {"clock": f"file:{place.repo}/.skewless/clock", "max_batch": CHUNK, "engine_rows": 0, **settings}
    with closing(Project(place.repo, engine_workers=workers, **given)) as project:
        if workers == WORKERS.workers:
            project.__dict__["executor"] = WORKERS
        yield project


def rows_of(n: int = ROWS) -> pa.Table:
    """Return payments with a column of another type, a dictionary, nulls, and metadata."""
    table = pa.Table.from_pylist(ask(n, FIRST))
    shops = table["shop_id"].combine_chunks().dictionary_encode()
    table = table.set_column(table.column_names.index("shop_id"), "shop_id", shops)
    amounts = pa.array(table["amount"].to_pylist(), mask=np.arange(n) % 7 == 3)
    table = table.set_column(table.column_names.index("amount"), "amount", amounts)
    table = table.append_column("note", pa.array([[i, None] if i % 2 else None for i in range(n)]))
    return table.replace_schema_metadata({"of": "a test"})


def predict(project: Project, source: Path, target: Path) -> pa.Table:
    """Return the predictions of a file, without those columns that differ by run."""
    assert project.predict_file(MODEL, source, target) == ROWS
    table = pa_csv.read_csv(target) if target.suffix == ".csv" else pq.read_table(target)
    return table.drop_columns(_OWN)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pq.write_table(rows_of(), tmp_path / "in.parquet", row_group_size=10 * CHUNK)
    return tmp_path / "in.parquet"


@pytest.fixture(scope="module")
def local_rows(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What one process predicts in a copy of the project; the rows of no other copy are others."""
    folder = tmp_path_factory.mktemp("local")
    pq.write_table(rows_of(), folder / "in.parquet", row_group_size=10 * CHUNK)
    with opened_copy(trained, folder / "p") as place, on_engine(place, engine_rows=10_000_000) as project:
        return predict(project, folder / "in.parquet", folder / "expected.parquet")


@pytest.mark.parametrize(("workers", "chunks", "tasks"), [(1, 256, 1), (2, 11, 3), (2, 1, 32)])
def test_the_file_is_that_of_one_process(
    place: Sandbox,
    source: Path,
    local_rows: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    chunks: int,
    tasks: int,
) -> None:
    monkeypatch.setattr(batch_tasks, "_TASK_CHUNKS", chunks)
    steps: list[tuple[str, int, int]] = []
    with on_engine(place, workers) as project:
        project.on_progress = lambda *step: steps.append(step)
        found = predict(project, source, tmp_path / "out.parquet")
        assert list(project.state.storage.list_objects(FOLDER)) == []
    assert found.equals(local_rows)
    assert found.schema.equals(local_rows.schema, check_metadata=True)
    assert pq.read_metadata(tmp_path / "out.parquet").num_row_groups == 32
    assert (len(steps), steps[-1]) == (tasks, ("predicting rows", ROWS, ROWS))


def test_workers_elsewhere_read_a_copy(
    place: Sandbox, source: Path, local_rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "has_local_workers", False)
    with on_engine(place) as project:
        found = predict(project, source, tmp_path / "out.parquet")
        assert list(project.state.storage.list_objects(FOLDER)) == []
    assert found.equals(local_rows)
    assert found.schema.equals(local_rows.schema, check_metadata=True)


def test_all_predictions_are_logged_and_proven(place: Sandbox, source: Path, tmp_path: Path) -> None:
    with on_engine(place) as project:
        project.predict_file(MODEL, source, tmp_path / "out.parquet")
    report = place.project.replay()
    assert (report.compared, report.different) == (ROWS, 0)
    assert len(set(pq.read_table(tmp_path / "out.parquet")["id"].to_pylist())) == ROWS


def test_csv_keeps_its_texts(place: Sandbox, tmp_path: Path) -> None:
    table = rows_of().drop_columns(["note"])
    times = table["paid_at"].cast(pa.timestamp("us", tz="UTC"))
    table = table.set_column(table.column_names.index("paid_at"), "paid_at", times)
    pa_csv.write_csv(table.append_column("zip", pa.array(["007"] * ROWS)), tmp_path / "in.csv")
    with on_engine(place, engine_rows=10_000_000) as project:
        predict(project, tmp_path / "in.csv", tmp_path / "expected.csv")
    with on_engine(place) as project:
        predict(project, tmp_path / "in.csv", tmp_path / "out.csv")
    texts = [(tmp_path / name).read_text().splitlines() for name in ("expected.csv", "out.csv")]
    names = texts[0][0].replace('"', "").split(",")
    at = [i for i, name in enumerate(names) if name not in _OWN]
    first, second = ([[line.split(",")[i] for i in at] for line in lines] for lines in texts)
    assert first == second
    assert '"007"' in first[1]


@pytest.mark.soak  # in make test, test_engine_reads.py has killed workers; tasks that are run twice are below
def test_killed_workers_do_not_change_the_file(
    place: Sandbox, source: Path, local_rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_tasks, "_TASK_CHUNKS", 4)
    with on_engine(place) as project, killing_workers(3) as are_left:
        found = predict(project, source, tmp_path / "out.parquet")
        while are_left():
            assert predict(project, source, tmp_path / "out.parquet").equals(local_rows)
    assert found.equals(local_rows)


def test_two_attempts_at_once_give_the_file_of_one(
    place: Sandbox, source: Path, local_rows: pa.Table, tmp_path: Path
) -> None:
    with on_engine(place) as project:
        project.__dict__["executor"] = TwiceExecutor(WORKERS)
        assert predict(project, source, tmp_path / "out.parquet").equals(local_rows)
        assert list(project.state.storage.list_objects(FOLDER)) == []


@pytest.mark.parametrize("part", ["scores", "matrix"])
def test_a_second_attempt_must_score_equal_vectors_equally(
    place: Sandbox, source: Path, local_rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    calls, score = 0, BatchPredictor._score

    async def score_badly(batch: BatchPredictor, *args: Any) -> ScoredSlice:  # noqa: ANN401 - those of a method
        nonlocal calls
        calls += 1
        scored = await score(batch, *args)
        if calls > 32:  # chunks of the first attempt
            scored.scored.scores = np.nextafter(scored.scored.scores, np.inf)
            if part == "matrix":  # as if the online store had changed
                scored.scored.matrix = scored.scored.matrix + 1.0
        return scored

    monkeypatch.setattr(BatchPredictor, "_score", score_badly)
    with on_engine(place, workers=1) as project:
        project.__dict__["executor"] = TwiceExecutor(ProcessExecutor(1))
        if part == "scores":
            with pytest.raises(StoreError, match="has given two different results"):
                predict(project, source, tmp_path / "out.parquet")
            return
        assert predict(project, source, tmp_path / "out.parquet").equals(local_rows)
    assert calls == 64


def _break_row(table: pa.Table) -> pa.Table:
    cards = [None if i == ROWS - 1 else card for i, card in enumerate(table["card_id"].to_pylist())]
    texts = pa.array(["x" if card is None else str(card) for card in cards])
    return table.set_column(table.column_names.index("card_id"), "card_id", texts)


def _drop_column(table: pa.Table) -> pa.Table:
    return table.drop_columns(["amount"])


def _add_score(table: pa.Table) -> pa.Table:
    return table.append_column("score", pa.array([0.0] * ROWS))


def _drop_rows(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


@pytest.mark.parametrize(
    ("change", "kind"),
    [(_break_row, RequestError), (_drop_column, SourceError), (_add_score, SourceError), (_drop_rows, SourceError)],
)
def test_an_invalid_file_fails_as_in_one_process(
    place: Sandbox, tmp_path: Path, change: Callable[[pa.Table], pa.Table], kind: type[SkewlessError]
) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(change(rows_of()), source)
    target.write_bytes(b"earlier predictions")
    problems = []
    for rows in (10_000_000, 0):
        with on_engine(place, engine_rows=rows) as project, pytest.raises(kind) as caught:
            project.predict_file(MODEL, source, target)
        problems.append({**caught.value.as_dict(), "problem": caught.value.problem.partition(" (task predict-")[0]})
    assert problems[0] == problems[1]
    assert target.read_bytes() == b"earlier predictions"
    assert sorted(tmp_path.glob(".*.tmp")) == []


def test_leaves_are_the_library_s_in_one_process_and_on_an_engine(place: Sandbox, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    with on_engine(place, engine_rows=10_000_000) as project:
        assert project.predict_file(MODEL, source, target, leaves=True) == ROWS
        whole = pq.read_table(target)
        with pytest.raises(RequestError, match=r"option --leaves: needs a Parquet target.*out\.csv"):
            project.predict_file(MODEL, source, tmp_path / "out.csv", leaves=True)
        some = project.predict(MODEL, whole.select(list(ask(1)[0])).slice(0, CHUNK).to_pylist())
    with on_engine(place) as project:
        assert project.predict_file(MODEL, source, target, leaves=True) == ROWS
    found = pq.read_table(target)
    assert found["leaves"].type == pa.list_(pa.int32())
    assert found["leaves"].equals(whole["leaves"])
    matrix = np.column_stack([some[name].to_numpy() for name in place.model.assembler.labels])
    booster = Booster(model_file=str(place.model.package.model_file))
    assert whole["leaves"][:CHUNK].to_pylist() == np.asarray(booster.predict(matrix, pred_leaf=True)).tolist()


def test_a_failed_job_continues_with_its_results(
    place: Sandbox, source: Path, local_rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_tasks, "_TASK_CHUNKS", 11)
    target, done, before = tmp_path / "new" / "out.parquet", [], place.log_files()
    with on_engine(place) as project:
        with pytest.raises(PlaceError, match="does not exist"):
            project.predict_file(MODEL, source, target)
        target.parent.mkdir()
        assert place.log_files() == before
        project.on_progress = lambda *_: target.mkdir(exist_ok=True)
        with pytest.raises(PlaceError, match="is a folder"):  # when the predictions are to be written
            project.predict_file(MODEL, source, target)
        logged = len(place.log_files())
        assert [path.name for path in target.parent.iterdir()] == ["out.parquet"]
        target.rmdir()
        project.on_progress = lambda *step: done.append(step)
        assert predict(project, source, target).equals(local_rows)
        assert len(done) == 3
        assert len(place.log_files()) == logged
        # The next command predicts again, as does one of another day.
        assert predict(project, source, target).equals(local_rows)
        assert len(place.log_files()) > logged


def test_results_of_yesterday_do_not_count(place: Sandbox, source: Path, tmp_path: Path) -> None:
    with on_engine(place) as project:
        project.on_progress = lambda *_: (tmp_path / "new").mkdir(exist_ok=True)
        with pytest.raises(PlaceError, match="is a folder"):
            predict(project, source, tmp_path / "new")
        place.wait(86_400)
        today_us = place.now_us()
        predict(project, source, tmp_path / "out.parquet")
    assert min(pq.read_table(tmp_path / "out.parquet")["t_us"].to_pylist()) >= today_us


def test_a_promotion_does_not_change_the_version(
    place: Sandbox, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = batch_tasks._load_model

    async def load_and_promote(*args: object) -> object:
        model = await load(*args)  # type: ignore[arg-type]
        place.wait(60)
        place.train()
        return model

    before = place.project.store.aliases.get(MODEL, "champion")
    with on_engine(place) as project:
        monkeypatch.setattr(batch_tasks, "_load_model", load_and_promote)
        found = predict(project, source, tmp_path / "out.parquet")
    assert set(found["version"].to_pylist()) == {before}
    assert place.project.store.aliases.get(MODEL, "champion") != before


def test_ctrl_c_leaves_no_worker_and_no_file(
    place: Sandbox, local_rows: pa.Table, source: Path, tmp_path: Path
) -> None:
    settings = {"ENGINE_ROWS": "0", "ENGINE_WORKERS": "2", "MAX_BATCH": "1"}
    settings["CLOCK"] = f"file:{place.repo}/.skewless/clock"
    words = ["predict", MODEL, "--in", source, "--out", tmp_path / "out.parquet", "--repo", place.repo]
    # A shell lets the programs that it starts in the background ignore Ctrl-C, and so tests and what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, "-m", "skewless.cli", *map(str, words)],
        env={**os.environ, **{f"SKEWLESS_{name}": value for name, value in settings.items()}},
    ) as driver:
        workers: list[int] = []
        deadline = time.monotonic() + 60
        while len(workers) < 2:
            assert time.monotonic() < deadline
            assert driver.poll() is None
            workers = _children(driver.pid)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(60) != 0
    # A worker that was just being started ends when it finds its stdin closed.
    while any(map(_is_worker, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []
    with on_engine(place) as project:
        assert predict(project, source, tmp_path / "out.parquet").equals(local_rows)


def _children(driver: int) -> list[int]:
    """Return the workers of a process."""
    listed = Path(f"/proc/{driver}/task/{driver}/children").read_text(encoding="utf-8").split()
    return [pid for pid in map(int, listed) if _is_worker(pid)]


def _is_worker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"engines.worker\0")
    except OSError:
        return False
