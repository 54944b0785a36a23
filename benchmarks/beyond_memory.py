"""Training beyond memory: one training set of 5 M rows x 20 features, in memory and from the storage."""

# ruff: noqa: PLC0415 - each contestant loads its own libraries, and nobody else's

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.contestant import Contestant, Race, race
from benchmarks.histories import History, write_log
from benchmarks.meter import Meter, Report
from benchmarks.repo import ViewTable
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.stored import plan_of
from skewless.contract.labels import LabelSource
from skewless.contract.spec import Algorithm, Gate, ModelSpec, Split

_MEMORY_LIMIT = "256MiB"
_HOURS = 10
_ROUNDS = 20
_TIMEOUT_S = 3_600
_LABELS = "labels.parquet"
_ALGORITHMS: tuple[Algorithm, ...] = ("lightgbm", "xgboost")


def run() -> list[Result]:
    """Train the same model both ways with each library; the models are compared to the last bit."""
    keys = scaled(100_000, least=200)
    table = ViewTable(name="vast", n_entities=keys, per_entity=_HOURS, n_features=20)
    history = History(tables=[table], entity_rows=50 * keys)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A source of the first rows is enough for `apply`: the log is written at once.
        pq.write_table(next(table.chunks()), folder / "vast.parquet")
        repo = history.repo(folder / "repo", folder, "skewless")
        pq.write_table(_labels(history), repo / _LABELS)
        write_log(plan_of(repo).views, {table.name: table.chunks()}, repo / ".skewless")
        for algorithm in _ALGORITHMS:
            results += _compare(repo, algorithm, history.entity_rows)
    return results


def _compare(repo: Path, algorithm: Algorithm, rows: int) -> list[Result]:
    ways = ("storage", "memory")
    entrants = [
        Contestant(
            name=way,
            entrant=trained,
            arguments={"repo": str(repo), "algorithm": algorithm, "way": way},
            timeout_s=_TIMEOUT_S,
        )
        for way in ways
    ]
    # The race fails if the models differ.
    done = race(entrants, rounds=1)
    what = f"beyond_memory: {rows:,} rows x 20 features, {algorithm}"
    ours, peer = ways

    def result(name: str, value: float, ratio: float, unit: str) -> Result:
        return Result(name=f"{what}, {name}", value=value, unit=unit, against="in memory", ratio=ratio)

    return [
        result(
            "memory",
            done.median(ours, _peak) / 1e6,
            done.ratio(ours, peer, _peak),
            "MB",
        ),
        result("seconds", done.median(ours), done.ratio(ours, peer), "s"),
        *(_cpu(done, lap, result) for lap in ("rows", "training")),
    ]


def _cpu(done: Race, lap: str, result: Callable[[str, float, float, str], Result]) -> Result:
    def seconds(report: Report) -> float:
        return report.cpu_seconds(lap)

    return result(f"{lap} of CPU", done.median("storage", seconds), done.ratio("storage", "memory", seconds), "s")


def _peak(report: Report) -> float:
    # Each lap begins with a peak of its own.
    return max(report.peak_bytes(lap) for lap in ("rows", "training"))


def trained(meter: Meter, *, repo: str, algorithm: Algorithm, way: str) -> str:
    """Train a model; return the digest of its file and of its metrics."""
    import hashlib
    import json
    import os
    from contextlib import ExitStack, nullcontext

    from skewless import Project
    from skewless.training.quality import measure
    from skewless.training.stored_matrix import score_rows
    from skewless.training.train import find_trainer
    from skewless.training.trainers.port import StreamTrainer

    spec = _spec(algorithm)
    with Project(repo, memory_limit=_MEMORY_LIMIT) as project, ExitStack() as stack, meter.lap():
        builder = project.training_builder(spec)
        with meter.lap("rows"):
            data = stack.enter_context(builder.open_stored() if way == "storage" else nullcontext(builder.build()))
        trainer = cast("StreamTrainer", find_trainer(spec.algorithm, os.cpu_count() or 1))
        with meter.lap("training"):
            model = trainer.train(data.training_rows(data.train), spec, data.training_rows(data.validation))
            metrics = measure(data, spec, score_rows(model.score, data.select(data.test)))
    return hashlib.sha256(model.model + json.dumps(metrics, sort_keys=True).encode()).hexdigest()


def _spec(algorithm: Algorithm) -> ModelSpec:
    return ModelSpec(
        name="m",
        service="all",
        labels=LabelSource(path=_LABELS, event_time="event_timestamp", known_time="known", label="y"),
        algorithm=algorithm,
        rounds=_ROUNDS,
        split=Split(test=timedelta(hours=2), validation=timedelta(hours=1)),
        gate=Gate(metric="auc"),
        time_mode="event_time",
    )


def _labels(history: History) -> pa.Table:
    """Return the label rows: chance, but less likely at odd keys."""
    asked, rng = history.asked(), np.random.default_rng(7)
    odd = asked["entity_id"].to_numpy() % 2 == 1
    labels = (rng.random(asked.num_rows) < np.where(odd, 0.3, 0.6)).astype(np.int64)
    known = asked["event_timestamp"]
    return asked.drop_columns(["row"]).append_column("known", known).append_column("y", pa.array(labels))
