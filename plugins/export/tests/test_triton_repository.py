"""A repository of Triton keeps the routes of inputs of single precision; the emulation is what FIL does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from plugins.export.tests.tree_exports import exported
from skewless.contract.errors import PackageError
from skewless_export import triton_repository
from skewless_export.export_certificate import compare_scores
from skewless_export.export_model import ExportModel, ModelInput
from skewless_export.readers import read_trees
from tests.worlds.tree_models import Matrix, hard_rows, library_margins, random_model

pytest.importorskip("treelite", reason="treelite is not installed: pip install 'skewless[treelite]'")


def write(model: ExportModel, folder: Path) -> bool:
    """Write a repository; return whether Triton can have this model."""
    try:
        files = triton_repository.write_triton(model)
    except PackageError:
        return False
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return True


def single(rows: Matrix) -> Matrix:
    """Return rows in single precision."""
    with np.errstate(over="ignore", under="ignore"):
        return rows.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("seeds", [range(7), pytest.param(range(7, 14), marks=pytest.mark.soak)])
@pytest.mark.parametrize(("algorithm", "least"), [("lightgbm", 5), ("xgboost", 5), ("sklearn", 2)])
def test_inputs_of_single_precision_keep_their_scores(algorithm: str, least: int, seeds: range, tmp_path: Path) -> None:
    written = 0
    for seed in seeds:
        sample = random_model(algorithm, seed, largest=30)
        table = read_trees(algorithm, sample.model, "sample")
        if not write(exported(table), tmp_path):
            continue
        written += 1
        rows = single(hard_rows(table, sample.categorical, seed, 500))
        scores = triton_repository.emulate_triton(tmp_path / "sample", rows)[:, : table.facts.n_outputs]
        found = compare_scores(
            rows, library_margins(sample, rows), scores, table.facts.n_outputs, "float64", bound=1e-5
        )
        assert (found.problem, found.beyond) == (None, 0), sample.text
    assert written >= least


def test_rows_that_single_precision_changes_are_named(tmp_path: Path) -> None:
    sample = random_model("lightgbm", 4, largest=30)
    table = read_trees("lightgbm", sample.model, "sample")
    assert write(exported(table), tmp_path)
    rows = hard_rows(table, sample.categorical, 4, 500)
    scores = triton_repository.emulate_triton(tmp_path / "sample", rows)
    found = compare_scores(rows, library_margins(sample, rows), scores, 1, "float64", bound=1e-5)
    assert found.beyond >= len(found.examples) > 0
    assert str(found.problem).startswith(f"changes {found.beyond} of 500 scores by more than 1e-05")
    shown = np.array([[float.fromhex(number) for number in item.inputs] for item in found.examples])
    assert (shown != single(shown)).any(axis=1).all()


def test_neighbours_of_a_number_become_both_of_its_neighbours_in_single_precision() -> None:
    table = read_trees("lightgbm", random_model("lightgbm", 4, largest=3).model, "sample")
    inputs = [ModelInput(name=name, dtype="float32") for name in table.facts.feature_names]
    model = ExportModel(name="m", version="1", package="-", table=table, inputs=inputs, note="")
    rows = np.full((4, len(inputs)), np.nan)
    rows[:, 0] = 0.1, np.nextafter(0.1, 1), 1e300, -np.inf
    found = triton_repository.single_precision_rows(model, rows)
    low, high = np.nextafter(np.float32(0.1), np.float32(0)), np.float32(0.1)
    assert sorted(found[:2, 0]) == [float(low), float(high)]
    assert found[2, 0] in {float(np.finfo(np.float32).max), np.inf}
    assert found[3, 0] == -np.inf
    assert np.isnan(found[:, 1:]).all()
    inputs[0] = ModelInput(name="a", dtype="float64")
    assert np.array_equal(triton_repository.single_precision_rows(model, rows), rows, equal_nan=True)
