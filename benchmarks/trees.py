"""One model's trees by several evaluators, from a single row to a million; their bits come first.

Each evaluates hard rows (on every threshold and beside it, infinities, zeros, denormals, null) and random ones before
it is measured: an evaluator with one other bit fails the run. All work on one thread, so that the process's CPU time is
measured, which other processes of the machine hardly change.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestant import Contestant, Race, race
from benchmarks.digest import digest_matrix
from benchmarks.meter import Meter
from benchmarks.result import Result
from benchmarks.scale import scale, scaled
from benchmarks.serving_race import fact, seconds
from benchmarks.tree_evaluators import ALGORITHMS, CBM, EVALUATORS, LIBRARY, Evaluate, Evaluator, Matrix

_SIZES = (1, 8, 64, 1_000, 1_000_000)
_FEATURES, _TRAINED_ON, _TREES, _LEAVES = 40, 20_000, 200, 63
_COMPARED = 4_096
_NULLS = 0.05
_FEWEST_STRETCHES, _STRETCH_S = 5, 5e-3


def run() -> list[Result]:
    """Compare all evaluators on a model of each library."""
    return [row for algorithm in ALGORITHMS for row in _compare(algorithm)]


def _compare(algorithm: str) -> Iterator[Result]:
    evaluators = [each for each in EVALUATORS if each.runs(algorithm)]
    if not evaluators:
        return
    sizes = [size for size in _SIZES if size <= max(1_000, 1_000_000 * scale())]
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {"algorithm": algorithm, "folder": folder}
        trees = scaled(_TREES, least=5)
        Contestant(name="the model", entrant=prepare, arguments={**given, "trees": trees, "rows": max(sizes)}).run()
        done = race([_contestant(each, sizes, given) for each in evaluators], rounds=1)
    for size in sizes:
        what = f"trees: {algorithm}, {trees} trees, {_FEATURES} features, CPU of {size:,} row{'s' * (size > 1)}"
        for each in evaluators:
            if each.name != LIBRARY and size <= each.most_rows:
                yield _row(done, f"{what}, {each.name}", each.name, size)


def _contestant(evaluator: Evaluator, sizes: Sequence[int], given: dict[str, Any]) -> Contestant:
    wanted = [size for size in sizes if size <= evaluator.most_rows]
    arguments = {**given, "name": evaluator.name, "sizes": wanted, "budget_s": seconds(0.3)}
    return Contestant(name=evaluator.name, entrant=evaluate, arguments=arguments)


def _row(done: Race, what: str, name: str, size: int) -> Result:
    taken = fact(f"{size} us")
    return Result(
        name=what,
        value=done.median(name, taken),
        unit="us",
        against=f"{LIBRARY} ({done.median(LIBRARY, taken):,.3g} us)",
        ratio=done.ratio(name, LIBRARY, taken),
    )


def prepare(meter: Meter, *, algorithm: str, folder: str, trees: int, rows: int) -> str:
    """Train a model; write it with the rows to compare and those to measure."""
    from skewless.infra.models.runtimes.certification import reference_rows  # noqa: PLC0415 - not in the parent

    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(max(rows, _TRAINED_ON), _FEATURES))
    matrix[rng.random(matrix.shape) < _NULLS] = np.nan
    known = np.nan_to_num(matrix[:_TRAINED_ON])
    odds = known[:, 0] * known[:, 1] + np.sin(2 * known[:, 2]) + 0.5 * known[:, -1]
    labels = (rng.random(_TRAINED_ON) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    with meter.lap("train"):
        thresholds = _TRAINERS[algorithm](trees, matrix[:_TRAINED_ON], labels, Path(folder, f"{algorithm}.model"))
    hard = reference_rows(thresholds, _FEATURES, seed=7)
    np.save(Path(folder, "hard.npy"), np.concatenate([hard, matrix[:_COMPARED]]))
    np.save(Path(folder, "rows.npy"), matrix[:rows])
    return "-"


def evaluate(meter: Meter, *, algorithm: str, folder: str, name: str, sizes: Sequence[int], budget_s: float) -> str:
    """Note the CPU microseconds of a call for each size; return the digest of the margins of the rows to compare."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a library is loaded
    (evaluator,) = (each for each in EVALUATORS if each.name == name)
    path = Path(folder, f"{algorithm}.model")
    with meter.lap("open"):
        call = evaluator.open(algorithm, path)
    hard = np.load(Path(folder, "hard.npy"))
    margins = np.asarray(call(hard), dtype=np.float64)
    alone = np.concatenate([np.asarray(call(row[None]), dtype=np.float64) for row in hard[:_COMPARED]])
    assert np.array_equal(alone, margins[: len(alone)]), "a row alone has another margin than in a batch"
    rows = np.load(Path(folder, "rows.npy"))
    for size in sizes:
        meter.note(f"{size} us", _cpu_seconds(call, np.ascontiguousarray(rows[:size]), budget_s) * 1e6)
    return digest_matrix(margins.reshape(len(margins), -1))


def _cpu_seconds(call: Evaluate, matrix: Matrix, budget_s: float) -> float:
    """Return the CPU seconds of a call: the median of some stretches, each of enough calls for the clock."""
    start = time.process_time()
    call(matrix)
    once = time.process_time() - start
    if once > budget_s:
        return once
    calls = max(1, int(_STRETCH_S / max(once, 1e-6)))
    stretches: list[float] = []
    while len(stretches) < _FEWEST_STRETCHES or sum(stretches) * calls < budget_s:
        start = time.process_time()
        for _ in range(calls):
            call(matrix)
        stretches.append((time.process_time() - start) / calls)
    return float(np.median(stretches))


def _lightgbm(trees: int, rows: Matrix, labels: Matrix, path: Path) -> list[tuple[int, float]]:
    import lightgbm  # noqa: PLC0415 - only where it trains

    from skewless.training.trainers.lightgbm import split_thresholds  # noqa: PLC0415 - as above

    options = {"objective": "binary", "num_leaves": _LEAVES, "learning_rate": 0.05, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(options, lightgbm.Dataset(rows, labels), trees)
    booster.save_model(path)
    return list(split_thresholds(booster.dump_model()))


def _xgboost(trees: int, rows: Matrix, labels: Matrix, path: Path) -> list[tuple[int, float]]:
    import json  # noqa: PLC0415 - as above

    import xgboost  # noqa: PLC0415 - as above

    from skewless.training.trainers.xgboost import split_thresholds  # noqa: PLC0415 - as above

    options = {
        "objective": "binary:logistic",
        "max_leaves": _LEAVES,
        "max_depth": 0,
        "eta": 0.05,
        "verbosity": 0,
        "nthread": 1,
    }
    booster = xgboost.train({**options, "grow_policy": "lossguide"}, xgboost.DMatrix(rows, labels), trees)
    path.write_bytes(booster.save_raw("json"))
    return list(split_thresholds(json.loads(path.read_bytes())))


def _catboost(trees: int, rows: Matrix, labels: Matrix, path: Path) -> list[tuple[int, float]]:
    import catboost  # noqa: PLC0415 - as above

    from skewless_catboost.trainer import export_json  # noqa: PLC0415 - as above

    options = {"iterations": trees, "depth": 6, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    model = catboost.CatBoostClassifier(**options).fit(rows, labels)
    model.save_model(str(path.with_suffix(CBM)))
    path.write_bytes(export_json(model, [rows], ()))
    return [(at, border) for at, borders in model.get_borders().items() for border in borders]


_TRAINERS = {"lightgbm": _lightgbm, "xgboost": _xgboost, "catboost": _catboost}
