"""Each page of the control room in a large project: 200 views, 50 models, 10 million predictions, 2,000 runs a day.

A model reads four views of ten features. All predictions are of one model.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.serving_repo import Shape, write_project
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import write_rows
from skewless.infra.log.log_columns import encode_columns
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import RunId
from skewless.infra.records.predictions.batches import numbers, texts, utf8
from skewless.infra.records.predictions.segments import PREDICTIONS, SCHEMA, WRITE_OPTIONS, prediction_files
from skewless.project import Project

_NAME = "control_room"
_LIMIT_MS, _LIMIT_KB = 300.0, 250.0
_FILE_ROWS, _DAYS, _RUNS_A_DAY = 50_000, 30, 2_000
_DAY_US = 86_400_000_000
_JOBS = ("materialize", "freshness", "drift fraud", "quality fraud01", "replay")


def run() -> list[Result]:
    """Make the project, start the control room and ask for each page."""
    models, views = scaled(50, least=2), scaled(200, least=4)
    shape = Shape(
        n_cards=500,
        n_shops=200,
        n_features=10 * views,
        n_views=views,
        rounds=50,
        leaves=15,
        models=models,
        n_labels=2_500,
        n_served=4,
    )
    with tempfile.TemporaryDirectory(prefix="room-") as folder:
        repo = write_project(Path(folder) / "p", shape)
        with Project(repo, threads=1) as project:
            project.apply()
            project.materialize(check=False)
            for spec in project.models:
                project.train(spec.name)
            prediction = fill(project, shape, scaled(10_000_000, least=2 * _FILE_ROWS))
        return measure(repo, prediction, shape)


def fill(project: Project, shape: Shape, predictions: int) -> str:
    """Add runs and predictions of the last month; return the id of a prediction in the middle."""
    _add_runs(project)
    cards, shops = shape.pairs(500).T.tolist()
    asked = [{"card_id": card, "shop_id": f"shop{shop}"} for card, shop in zip(cards, shops, strict=True)]
    project.predict("fraud", asked)
    return _add_predictions(project, predictions)


def _add_runs(project: Project) -> None:
    ledger, now_us = Ledger(project.state), project.clock.now_us()
    step_us = _DAY_US // _RUNS_A_DAY
    database = project.state.database
    with database.transaction():
        for index in range(7 * _RUNS_A_DAY):
            run_id = RunId(job=_JOBS[index % len(_JOBS)], tick_us=now_us - index * step_us - 60_000_000)
            start = {"cause": "schedule", "token": 1, "started_us": run_id.tick_us, "inputs": {}}
            state = "failed" if index % 97 == 0 else "done"
            end = {
                "ended_us": run_id.tick_us + 20_000_000,
                "outputs": {},
                "error": "a problem" if index % 97 == 0 else None,
            }
            database.execute(
                "INSERT INTO job_runs VALUES (?, ?, ?, ?, ?, ?)",
                *(run_id.job, run_id.tick_us, 1, state, json.dumps(start), json.dumps(end)),
            )
    assert ledger.read_latest_first(None, limit=1)


def _add_predictions(project: Project, count: int) -> str:
    """Append files of predictions, as compaction would leave them: logged ones with other ids, times and entities."""
    base = pa.concat_tables([pq.read_table(path) for path in prediction_files(project.state)]).select(SCHEMA.names)
    rng, now_us = np.random.default_rng(0), project.clock.now_us()
    files = max(count // _FILE_ROWS, 1)
    span = _DAYS * _DAY_US // files
    chosen = ""
    for number in range(files):
        start = now_us - _DAYS * _DAY_US + number * span
        table = _other_rows(base, np.sort(rng.integers(start, start + span, _FILE_ROWS)), number, rng)
        chosen = table["id"][_FILE_ROWS // 2].as_py() if number <= files // 2 else chosen
        began = time.time()
        with write_rows(project.state.storage, [table], table.schema, lambda _: WRITE_OPTIONS) as (path, rows):
            stored = project.state.storage.put_file(f"log/predictions/{number:020d}-room.parquet", path)
        Catalog(project.state.database).append(
            *(PREDICTIONS, stored, rows),
            began_at=began,
            at_us=int(table["t"][-1].as_py()),
            is_merged=True,
            columns=encode_columns(SCHEMA),
        )
    return chosen


def _other_rows(base: pa.Table, at_us: np.ndarray, number: int, rng: np.random.Generator) -> pa.Table:
    table = base.take(pa.array(rng.integers(0, base.num_rows, len(at_us))))
    at = at_us // 1_000 * 1_000
    ids = [f"{time_us // 1_000:011x}-0000000a-{number * _FILE_ROWS + i:x}" for i, time_us in enumerate(at.tolist())]
    cards = rng.integers(0, 1_000_000, len(at)).tolist()
    inputs = [f'{{"card_id":{card},"shop_id":"shop{card % 200}"}}'.encode() for card in cards]
    columns = {
        "id": texts(ids),
        "t": numbers(at),
        "asked_at": numbers(at + 137),
        "read_start": numbers(at + 200),
        "read_end": numbers(at + 900),
        "inputs": utf8(inputs),
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), values)
    return table


@contextmanager
def _room(repo: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "skewless.cli", "ui", "--repo", str(repo), "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def measure(repo: Path, prediction: str, shape: Shape) -> list[Result]:
    """Return time and size of each page; the first question of a process is reported apart."""
    view = shape.views[0].name
    paths = {
        "/": "/",
        "/models": "/models",
        "/models/M": "/models/fraud",
        "/models/M/versions/V": "/models/fraud/versions/000001",
        "/views": "/views",
        "/views/V": f"/views/{view}",
        "/predictions": "/predictions",
        "/predictions/ID": f"/predictions/{prediction}",
        "/entities": "/entities/card_id?card_id=77",
        "/runs": "/runs",
        "/refused": "/refused",
        "/changes": "/changes",
        "/search": "/search?q=card",
    }
    results = []
    with _room(repo) as url:
        for name, path in paths.items():
            first, *later = [_ask(url + path) for _ in range(rounds(7) + 1)]
            results.append(
                _row(f"{name}, time at the server", statistics.median(s for s, _ in later) * 1e3, "ms", _LIMIT_MS)
            )
            results.append(_row(f"{name}, first time", first[0] * 1e3, "ms", None))
            results.append(_row(f"{name}, size", first[1] / 1e3, "kB", _LIMIT_KB))
    return results


def _ask(url: str) -> tuple[float, int]:
    started = time.perf_counter()
    with urlopen(url) as reply:  # noqa: S310 - our server
        body = reply.read()
    return time.perf_counter() - started, len(body)


def _row(what: str, value: float, unit: str, limit: float | None) -> Result:
    return Result(
        name=f"{_NAME}: {what}",
        value=value,
        unit=unit,
        against="-" if limit is None else f"the limit of {limit:g} {unit}",
        ratio=None if limit is None else value / limit,
        target=None if limit is None else 1.0,
    )
