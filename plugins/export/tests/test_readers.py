"""The tree table has the trees of each library: read by its own text, it gives the library's raw scores."""

from __future__ import annotations

from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from skewless.contract.errors import PackageError
from skewless_export.readers import read_trees
from skewless_export.table import TreeTable
from tests.worlds.tree_models import hard_rows, library_margins, random_model, same_bits, slow_margins


@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 20), marks=pytest.mark.soak)])
@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "sklearn", "catboost"])
def test_tables_have_the_trees_of_the_library(algorithm: str, seeds: range) -> None:
    for seed in seeds:
        sample = random_model(algorithm, seed)
        table = read_trees(algorithm, sample.model, "sample")
        rows = hard_rows(table, sample.categorical, seed, 60)
        equal = same_bits(slow_margins(table, rows), library_margins(sample, rows))
        assert equal.all(), (seed, sample.text, rows[~equal][:3].tolist())


def test_a_file_holds_the_whole_table(tmp_path: Path) -> None:
    sample = random_model("lightgbm", 3)
    table = read_trees("lightgbm", sample.model, "sample")
    (tmp_path / "trees.parquet").write_bytes(table.to_bytes())
    back = TreeTable.read(tmp_path / "trees.parquet")
    assert back.facts == table.facts
    # NaN differs from itself; the text of a node does not.
    assert repr(list(back.trees())) == repr(list(table.trees()))
    with pytest.raises(PackageError, match=r"^tree table: has another format"):
        TreeTable.from_arrow(pa.table({"a": [1]}))


def test_infinite_thresholds_are_kept() -> None:
    numbers = np.random.default_rng(0).normal(size=(400, 1))
    matrix, labels = np.concatenate([numbers, np.full((100, 1), np.nan)]), np.repeat([0.0, 1.0], [400, 100])
    booster = lgb.train({"min_data_in_leaf": 1, "verbosity": -1, "num_leaves": 2}, lgb.Dataset(matrix, labels), 1)
    table = read_trees("lightgbm", booster.model_to_string().encode(), "sample")
    # The library's own description of the model has another number.
    assert booster.dump_model()["tree_info"][0]["tree_structure"]["threshold"] == 1e300
    assert np.isinf(table.column("threshold")).any()


def test_models_that_no_table_can_hold_are_refused() -> None:
    matrix = np.random.default_rng(0).normal(size=(100, 2))
    linear = lgb.train({"linear_tree": True, "verbosity": -1}, lgb.Dataset(matrix, matrix[:, 0]), 2)
    with pytest.raises(PackageError, match=r"has linear leaves, .*linear_tree"):
        read_trees("lightgbm", linear.model_to_string().encode(), "sample")
    with pytest.raises(PackageError, match="is not a LightGBM text model"):
        read_trees("lightgbm", b"tree\n", "sample")
    with pytest.raises(PackageError, match="is not an XGBoost model"):
        read_trees("xgboost", b'{"learner": {}}', "sample")
    data = xgb.DMatrix(matrix, label=matrix)
    vectors = xgb.train({"multi_strategy": "multi_output_tree", "tree_method": "hist"}, data, 2)
    with pytest.raises(PackageError, match=r"has vectors in its leaves"):
        read_trees("xgboost", bytes(vectors.save_raw("json")), "sample")
    flat = xgb.train({"booster": "gblinear"}, xgb.DMatrix(matrix, label=matrix[:, 0]), 2)
    with pytest.raises(PackageError, match=r"has no trees .*gblinear"):
        read_trees("xgboost", bytes(flat.save_raw("json")), "sample")
    with pytest.raises(PackageError, match="has trees that cannot be read"):
        read_trees("linear", b"", "sample")


def test_the_margin_of_a_base_score_keeps_its_sign() -> None:
    matrix = np.zeros((10, 1))
    data = xgb.DMatrix(matrix, label=np.repeat([0.0, 1.0], 5))
    booster = xgb.train({"objective": "binary:logistic", "base_score": 0.5}, data, 1)
    base = read_trees("xgboost", bytes(booster.save_raw("ubj")), "sample").facts.base
    # The logarithm of 1, with a minus: adding 0.0 to it would give 0.0.
    assert (base, np.signbit(base[0])) == ((0.0,), True)
