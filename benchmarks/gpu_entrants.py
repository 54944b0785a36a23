"""Who scores a matrix: our runtime on the CPU, our second runtime, and a bare call of the libraries."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.latency import quantile
from benchmarks.meter import Meter

Matrix = npt.NDArray[np.float64]
Where = Literal["cpu", "gpu"]
LARGEST = 65_536
_FEATURES, _TRAINED_ON, _LEAVES = 40, 20_000, 63
_NULLS = 0.05
_MOST_CALLS, _FEWEST_CALLS = 1_000, 3
_COMPARED = 2_048
_NEAR = 1e-4  # how far a bare call may be off: its sums are in another order, of float32 for XGBoost
_CALLS = "calls"


def nvforest_folder() -> Path | None:
    """Return the folder that `make setup-nvforest` fills, where nvForest is not installed beside us."""
    folder = Path(f"{sys.prefix}-nvforest")
    return folder if find_spec("nvforest") is None and folder.is_dir() else None


def prepare(meter: Meter, *, algorithm: str, trees: int, folder: str) -> str:
    """Train a model, and write it with rows and what the library makes of the first of them."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(LARGEST, _FEATURES))
    rows[rng.random(rows.shape) < _NULLS] = np.nan
    known = np.nan_to_num(rows[:_TRAINED_ON])
    odds = known[:, 0] * known[:, 1] + np.sin(2 * known[:, 2]) + 0.5 * known[:, -1]
    labels = (rng.random(_TRAINED_ON) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    with meter.lap("train"):
        scores = _train(algorithm, trees, rows[:_TRAINED_ON], labels, model_of(algorithm, folder))(rows[:_COMPARED])
    np.save(Path(folder, "rows.npy"), rows)
    np.save(Path(folder, f"{algorithm}.npy"), np.asarray(scores, dtype=np.float64))
    return "-"


def model_of(algorithm: str, folder: str) -> Path:
    """Return where the model of an algorithm lies."""
    return Path(folder, f"{algorithm}.{'txt' if algorithm == 'lightgbm' else 'json'}")


def own(meter: Meter, *, algorithm: str, folder: str, sizes: Sequence[int], budget_s: float) -> str:
    """Score by the library's own runtime on the CPU, as a server without a second runtime does."""
    _one_core()
    from skewless.infra.models.runtimes.candidates import open_runtime  # noqa: PLC0415 - after the threads are set

    runtime = open_runtime(algorithm, model_of(algorithm, folder))
    return _measure(meter, runtime.score, algorithm, folder, sizes, budget_s, exact=True)


def second(meter: Meter, *, algorithm: str, folder: str, sizes: Sequence[int], budget_s: float, where: Where) -> str:
    """Score by our nvForest runtime in this process, as batch prediction does: with the bits of the library."""
    _one_core()
    from skewless_gpu.nvforest import NvForestRuntime  # noqa: PLC0415 - as above

    runtime = NvForestRuntime(algorithm, model_of(algorithm, folder), where)
    return _measure(meter, runtime.score, algorithm, folder, sizes, budget_s, exact=True)


def xgboost_cuda(meter: Meter, *, algorithm: str, folder: str, sizes: Sequence[int], budget_s: float) -> str:
    """Score by our runtime of XGBoost's C API on device memory, which may be off by roundings."""
    from skewless_gpu.xgboost_cuda import XGBoostCudaRuntime  # noqa: PLC0415 - only where there is a GPU

    runtime = XGBoostCudaRuntime.from_file(model_of(algorithm, folder))
    return _measure(meter, runtime.score, algorithm, folder, sizes, budget_s, exact=False)


def bare_nvforest(
    meter: Meter, *, algorithm: str, folder: str, sizes: Sequence[int], budget_s: float, where: Where
) -> str:
    """Score by nvForest as its page shows it; rows and scores lie on the host, as ours do."""
    _one_core()
    import nvforest  # noqa: PLC0415 - only where it is measured

    precision = "double" if algorithm == "lightgbm" else "single"
    forest = nvforest.load_model(model_of(algorithm, folder), device=where, precision=precision)
    predict = getattr(forest, "predict_proba", forest.predict)

    def call(rows: Matrix) -> Any:  # noqa: ANN401 - numpy or cupy
        found = _on_host(predict(rows if precision == "double" else rows.astype(np.float32)))
        return found.reshape(len(rows), -1)[:, -1]

    return _measure(meter, call, algorithm, folder, sizes, budget_s, exact=False)


def bare_inplace(meter: Meter, *, algorithm: str, folder: str, sizes: Sequence[int], budget_s: float) -> str:
    """Score by XGBoost's ``inplace_predict`` on a GPU; the rows are copied there and the scores back."""
    import cupy  # noqa: PLC0415 - only where there is a GPU
    import xgboost  # noqa: PLC0415 - as above

    booster = xgboost.Booster(model_file=str(model_of(algorithm, folder)))
    booster.set_param({"device": "cuda"})

    def call(rows: Matrix) -> Any:  # noqa: ANN401 - numpy
        return _on_host(booster.inplace_predict(cupy.asarray(rows)))

    return _measure(meter, call, algorithm, folder, sizes, budget_s, exact=False)


def _measure(
    meter: Meter,
    call: Callable[[Matrix], Any],
    algorithm: str,
    folder: str,
    sizes: Sequence[int],
    budget_s: float,
    *,
    exact: bool,
) -> str:
    """Compare the scores with the library's, then note rows a second, p50 and p99 in milliseconds of each size."""
    rows = np.load(Path(folder, "rows.npy"))
    expected = np.load(Path(folder, f"{algorithm}.npy"))
    found = np.asarray(call(rows[: len(expected)]), dtype=np.float64)
    same = np.array_equal(found, expected) if exact else np.allclose(found, expected, rtol=_NEAR, atol=_NEAR)
    assert same, f"scores are {np.abs(found - expected).max()} apart at most"
    for size in sizes:
        taken = _seconds(call, np.ascontiguousarray(rows[:size]), budget_s)
        meter.note(f"{size} {_CALLS}", len(taken))
        meter.note(f"{size} rate", size * len(taken) / taken.sum())
        meter.note(f"{size} p50", quantile(taken, 0.5) * 1e3)
        meter.note(f"{size} p99", quantile(taken, 0.99) * 1e3)
    return "-"


def _seconds(call: Callable[[Matrix], Any], rows: Matrix, budget_s: float) -> Matrix:
    call(rows)
    taken: list[float] = []
    while len(taken) < _FEWEST_CALLS or (len(taken) < _MOST_CALLS and sum(taken) < budget_s):
        start = time.perf_counter()
        call(rows)
        taken.append(time.perf_counter() - start)
    return np.array(taken)


def _train(algorithm: str, trees: int, rows: Matrix, labels: Matrix, path: Path) -> Callable[[Matrix], Any]:
    if algorithm == "lightgbm":
        import lightgbm  # noqa: PLC0415 - only where it trains

        options = {"objective": "binary", "num_leaves": _LEAVES, "learning_rate": 0.05, "verbosity": -1}
        found = lightgbm.train(options, lightgbm.Dataset(rows, labels), trees)
        found.save_model(path)
        return lambda given: found.predict(given, num_threads=1)
    import xgboost  # noqa: PLC0415 - as above

    options = {"objective": "binary:logistic", "max_leaves": _LEAVES, "max_depth": 0, "eta": 0.05, "verbosity": 0}
    booster = xgboost.train({**options, "grow_policy": "lossguide"}, xgboost.DMatrix(rows, labels), trees)
    booster.save_model(path)
    return booster.inplace_predict


def _one_core() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a library is loaded: a runtime uses one core
    folder = nvforest_folder()
    if folder is not None:
        sys.path.append(str(folder))


def _on_host(found: Any) -> Any:  # noqa: ANN401 - numpy or cupy
    return found.get() if hasattr(found, "get") else np.asarray(found)
