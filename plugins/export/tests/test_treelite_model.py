"""A model of Treelite has the bits of the library, or is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from plugins.export.tests.tree_exports import exported
from skewless.contract.errors import PackageError
from skewless_export import treelite_model
from skewless_export.readers import read_trees
from skewless_export.table import TreeTable
from tests.worlds.tree_models import hard_rows, library_margins, random_model, same_bits

REFUSALS = {
    "lightgbm": "counts 0 as missing",
    "xgboost": "none of these models",
    "sklearn": "has no category if it has a fraction",
    "catboost": "compares in single precision and adds in double",
}


def write(table: TreeTable, path: Path) -> str:
    """Write a model; return why it is refused, or nothing."""
    try:
        path.write_bytes(treelite_model.write_treelite(exported(table)))
    except PackageError as error:
        return str(error)
    return ""


def test_a_model_that_can_score_minus_zero_is_refused(tmp_path: Path) -> None:
    # Its base and a leaf of each tree are -0.0, and a sum of Treelite starts at 0.
    sample = random_model("xgboost", 1050, largest=12)
    assert "can score -0.0" in write(read_trees("xgboost", sample.model, "sample"), tmp_path / "sample.tl")


@pytest.mark.parametrize("models", [6, pytest.param(12, marks=pytest.mark.soak)])
@pytest.mark.parametrize("algorithm", [*REFUSALS])
def test_scores_have_the_bits_of_the_library(algorithm: str, models: int, tmp_path: Path) -> None:
    pytest.importorskip("treelite", reason="treelite is not installed: pip install 'skewless[treelite]'")
    written = 0
    path = tmp_path / "sample.tl"
    for seed in range(2 if algorithm == "catboost" else models):
        sample = random_model(algorithm, seed, largest=5)
        table = read_trees(algorithm, sample.model, "sample")
        rows = hard_rows(table, sample.categorical, seed, 500)
        problem = write(table, path)
        if problem:
            assert re.search(REFUSALS[algorithm], problem), sample.text
            continue
        written += 1
        scores = treelite_model.score_treelite(path, rows)
        margins = np.ascontiguousarray(scores[:, : table.facts.n_outputs])
        assert same_bits(margins, library_margins(sample, rows)).all(), sample.text
    assert written >= {"lightgbm": 8, "xgboost": 12, "sklearn": 4, "catboost": 0}[algorithm] * models // 12
