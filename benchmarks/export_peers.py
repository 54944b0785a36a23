"""What other converters change: their scores of hard rows against those of the library that trained the model.

Each peer converts the same model files, in an environment of its own, and scores rows on every threshold and beside
it, with missing values, infinities, zeros, and categories that were not seen. A peer that cannot convert a model has no
row, and the reason is printed. Some give raw scores, others predictions only; each is compared with the library's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestant import Contestant
from benchmarks.environments import python_of
from benchmarks.meter import Meter
from benchmarks.peers.converters import CONVERTERS, Matrix
from benchmarks.result import Result
from benchmarks.scale import scaled

_ROWS, _TREES, _TRAINED_ON, _FEATURES = 4_000, 100, 4_000, 8
_LIMIT = 1e-6
_OURS, _FIL = "skewless, tree table", "FIL, single precision (emulated)"
_LIGHTGBM: Mapping[str, Mapping[str, Any]] = {
    "binary": {"objective": "binary"},
    "regression": {"objective": "regression"},
    "categorical": {"objective": "binary", "max_cat_to_onehot": 4, "min_data_per_group": 20},
    "zero as missing": {"objective": "binary", "zero_as_missing": True},
    "no missing": {"objective": "binary", "use_missing": False},
}
_XGBOOST: Mapping[str, Mapping[str, Any]] = {
    "binary": {"objective": "binary:logistic"},
    "regression": {"objective": "reg:squarederror"},
    "categorical": {"objective": "binary:logistic", "max_cat_to_onehot": 4},
}
_KINDS = {"lightgbm": _LIGHTGBM, "xgboost": _XGBOOST}


def run() -> list[Result]:
    """Compare all converters on the models of both libraries."""
    models = [(algorithm, kind) for algorithm, kinds in _KINDS.items() for kind in kinds]
    return [row for algorithm, kind in models for row in _compare(algorithm, kind)]


def _compare(algorithm: str, kind: str) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {"algorithm": algorithm, "kind": kind, "folder": name}
        sizes = {"trees": scaled(_TREES, least=5), "rows": scaled(_ROWS, least=100)}
        Contestant(name="the model", entrant=prepare, arguments={**given, **sizes}).run()
        for peer in (_OURS, _FIL, *CONVERTERS):
            if peer in CONVERTERS:
                arguments = {**given, "peer": peer}
                Contestant(name=peer, entrant=convert, arguments=arguments, python=python_of("converters")).run()
            reply = json.loads((folder / f"{peer}.json").read_text())
            if "refusal" in reply:
                print(f"{algorithm}, {kind}: {peer} cannot: {reply['refusal']}", file=sys.stderr, flush=True)
                continue
            expected = np.load(folder / f"{reply['numbers']}.npy")
            yield _row(f"{algorithm}, {kind}, {peer}", reply["numbers"], expected, np.load(folder / f"{peer}.npy"))


def _row(what: str, numbers: str, expected: Matrix, actual: Matrix) -> Result:
    others = int((expected.view(np.int64) != actual.view(np.int64)).sum())
    gaps = np.abs(expected - actual)
    return Result(
        name=f"export_peers: {what}, rows of {len(expected):,} off by more than {_LIMIT:g}",
        value=float((gaps > _LIMIT).sum()),
        unit="rows",
        against=f"the library's {numbers}; {others:,} rows with other bits, at most {gaps.max():.2g} off",
        ratio=None,
    )


def prepare(meter: Meter, *, algorithm: str, kind: str, folder: str, trees: int, rows: int) -> str:
    """Train a model; write it, hard rows, the library's numbers, and those of the tree table in both precisions."""
    from benchmarks.single_precision import single_precision_margins  # noqa: PLC0415 - as above
    from skewless_export.evaluate import table_margins  # noqa: PLC0415 - not in the environment of the peers
    from skewless_export.readers import read_trees  # noqa: PLC0415 - as above
    from tests.worlds.tree_models import hard_rows  # noqa: PLC0415 - as above

    path = Path(folder)
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(_TRAINED_ON, _FEATURES)) * 10
    categorical = (0, 3) if kind == "categorical" else ()
    for index in categorical:
        matrix[:, index] = rng.integers(0, 25, _TRAINED_ON)
    if algorithm == "xgboost" or kind != "no missing":
        matrix[rng.random(matrix.shape) < 0.05] = np.nan
    matrix[rng.random(matrix.shape) < 0.05] = 0.0
    signal = np.nan_to_num(matrix)
    signal = signal[:, 1] + signal[:, 2] * np.sin(signal[:, 0]) + signal[:, 3] % 5
    labels = signal if kind == "regression" else (signal > np.median(signal)).astype(np.float64)
    hard: Matrix
    with meter.lap("train"):
        trained = _TRAINERS[algorithm](matrix, labels, categorical, _KINDS[algorithm][kind], trees, path)
    table = read_trees(algorithm, trained, "model")
    hard = np.ascontiguousarray(hard_rows(table, categorical, 7, rows))
    np.save(path / "rows.npy", hard)
    for numbers, raw in (("raw scores", True), ("predictions", False)):
        np.save(path / f"{numbers}.npy", _LIBRARIES[algorithm](trained, hard, raw))
    for peer, margins in ((_OURS, table_margins(table, hard)), (_FIL, single_precision_margins(table, hard))):
        np.save(path / f"{peer}.npy", margins[:, 0].copy())
        (path / f"{peer}.json").write_text(json.dumps({"numbers": "raw scores"}))
    return "-"


def convert(meter: Meter, *, algorithm: str, kind: str, folder: str, peer: str) -> str:
    """Convert and score in the environment of the peers; write the numbers, or why there are none."""
    path = Path(folder)
    rows = np.load(path / "rows.npy")
    reply: dict[str, str] = {}
    try:
        with meter.lap("convert"):
            reply["numbers"], scores = CONVERTERS[peer](algorithm, path, rows, kind != "regression")
        np.save(path / f"{peer}.npy", np.ascontiguousarray(scores, dtype=np.float64).reshape(len(rows)))
    except Exception as error:  # noqa: BLE001 - peers raise any type
        reply = {"refusal": f"{type(error).__name__}: {error}"[:300]}
    (path / f"{peer}.json").write_text(json.dumps(reply))
    return "-"


def _train_lightgbm(
    matrix: Matrix, labels: Matrix, categorical: tuple[int, ...], options: Mapping[str, Any], trees: int, path: Path
) -> bytes:
    import lightgbm  # noqa: PLC0415 - only where it trains

    data = lightgbm.Dataset(matrix, labels, categorical_feature=list(categorical))
    general = {"num_leaves": 31, "learning_rate": 0.1, "verbosity": -1, "num_threads": 1, "seed": 1}
    booster = lightgbm.train({**general, **options}, data, trees)
    booster.save_model(path / "model.txt")
    return (path / "model.txt").read_bytes()


def _train_xgboost(
    matrix: Matrix, labels: Matrix, categorical: tuple[int, ...], options: Mapping[str, Any], trees: int, path: Path
) -> bytes:
    import xgboost  # noqa: PLC0415 - as above

    types = ["c" if index in categorical else "q" for index in range(matrix.shape[1])]
    data = xgboost.DMatrix(matrix, label=labels, feature_types=types, enable_categorical=True)
    general = {"max_depth": 6, "eta": 0.1, "verbosity": 0, "nthread": 1, "base_score": 0.5, "tree_method": "hist"}
    booster = xgboost.train({**general, **options}, data, trees)
    booster.save_model(path / "model.json")
    return (path / "model.json").read_bytes()


def _score_lightgbm(model: bytes, rows: Matrix, raw: bool) -> Matrix:  # noqa: FBT001 - of a table
    import lightgbm  # noqa: PLC0415 - as above

    booster = lightgbm.Booster(model_str=model.decode())
    return np.asarray(booster.predict(rows, raw_score=raw, num_threads=1), dtype=np.float64)


def _score_xgboost(model: bytes, rows: Matrix, raw: bool) -> Matrix:  # noqa: FBT001 - as above
    import xgboost  # noqa: PLC0415 - as above

    booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(model))
    kind = "margin" if raw else "value"
    return np.asarray(booster.inplace_predict(rows, predict_type=kind, missing=np.nan), dtype=np.float64)


_TRAINERS = {"lightgbm": _train_lightgbm, "xgboost": _train_xgboost}
_LIBRARIES = {"lightgbm": _score_lightgbm, "xgboost": _score_xgboost}
