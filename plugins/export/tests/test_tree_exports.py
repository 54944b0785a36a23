"""Random models of each library, on rows at and beside every threshold: exports have the library's bits."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.export.tests.tree_exports import (
    TOOLCHAINS,
    c_scores,
    find_toolchain,
    find_wasm,
    onnx_scores,
    treelite_scores,
    wasm_margins,
)
from skewless.contract.errors import PackageError
from skewless_export.c_source import write_c
from skewless_export.edge_source import write_edge
from skewless_export.evaluate import prepare_inputs, table_margins, tree_leaves
from skewless_export.export_rows import export_rows
from skewless_export.readers import read_trees
from skewless_export.table import Tree, TreeTable
from tests.worlds.tree_models import Matrix, SampleModel, hard_rows, library_margins, random_model, same_bits

ALGORITHMS = ["lightgbm", "xgboost", "sklearn", "catboost"]
SEEDS = st.integers(0, 2**31)
# Each example compiles a program.
FEW = max(3, settings().max_examples // 15)


def differences(sample: SampleModel, seed: int, count: int, compiler: str) -> int:
    """Return the number of rows for which the C, edge's C or the table of a model has other bits than the library."""
    table = read_trees(sample.algorithm, sample.model, "sample")
    rows = hard_rows(table, sample.categorical, seed, count)
    expected = library_margins(sample, rows)
    same = same_bits(table_margins(table, rows), expected)
    for write in (write_c, write_edge):
        with tempfile.TemporaryDirectory() as folder:
            scores = c_scores(table, rows, Path(folder), find_toolchain(compiler), write)
        same &= same_bits(np.ascontiguousarray(scores[:, : table.facts.n_outputs]), expected)
    return int((~same).sum())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=FEW)
@given(seed=SEEDS)
def test_exports_have_the_bits_of_the_library(algorithm: str, seed: int) -> None:
    sample = random_model(algorithm, seed, largest=5)
    assert differences(sample, seed, 500, "gcc") == 0, sample.text


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=FEW)
@given(seed=SEEDS)
def test_onnx_has_the_bits_of_the_library(algorithm: str, seed: int) -> None:
    sample = random_model(algorithm, seed, largest=5)
    table = read_trees(sample.algorithm, sample.model, "sample")
    rows = hard_rows(table, sample.categorical, seed, 500)
    with tempfile.TemporaryDirectory() as folder:
        scores = onnx_scores(table, rows, Path(folder))
    assert same_bits(np.ascontiguousarray(scores[:, : table.facts.n_outputs]), library_margins(sample, rows)).all()


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost"])
@settings(max_examples=FEW)
@given(seed=SEEDS)
def test_treelite_has_the_bits_of_the_library_or_refuses_the_model(algorithm: str, seed: int) -> None:
    pytest.importorskip("treelite", reason="treelite is not installed: pip install 'skewless[treelite]'")
    sample = random_model(algorithm, seed, largest=5)
    table = read_trees(sample.algorithm, sample.model, "sample")
    rows = hard_rows(table, sample.categorical, seed, 500)
    with tempfile.TemporaryDirectory() as folder:
        try:
            scores = treelite_scores(table, rows, Path(folder))
        except PackageError:
            return
    assert same_bits(np.ascontiguousarray(scores[:, : table.facts.n_outputs]), library_margins(sample, rows)).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=FEW)
@given(seed=SEEDS)
def test_rows_find_a_threshold_that_is_off_by_one_unit(algorithm: str, seed: int) -> None:
    sample = random_model(algorithm, seed, largest=5)
    table = read_trees(algorithm, sample.model, "sample")
    rows = export_rows(table, {}, most=100_000).matrix
    trees, rng = list(table.trees()), np.random.default_rng(seed)
    splits = [
        (number, at)
        for number, tree in enumerate(trees)
        for at, node in enumerate(tree.nodes)
        if node.test in {"<", "<="} and np.isfinite(node.threshold)
    ]
    for index in rng.permutation(len(splits))[:5]:
        number, at = splits[index]
        changed = _shift(table, trees[number], at, float(rng.choice([-np.inf, np.inf])))
        if _has_effect(table, trees[number], changed, rows):
            others = TreeTable.from_trees(table.facts, [*trees[:number], changed, *trees[number + 1 :]])
            assert not same_bits(table_margins(others, rows), table_margins(table, rows)).all()


def _shift(table: TreeTable, tree: Tree, at: int, towards: float) -> Tree:
    kind = np.dtype(table.facts.input_type).type
    with np.errstate(over="ignore"):  # next to the largest number is infinity
        threshold = float(np.nextafter(kind(tree.nodes[at].threshold), kind(towards)))
    nodes = (*tree.nodes[:at], tree.nodes[at]._replace(threshold=threshold), *tree.nodes[at + 1 :])
    return Tree(tree.output, nodes)


def _has_effect(table: TreeTable, tree: Tree, changed: Tree, rows: Matrix) -> bool:
    """Say whether a row gets another leaf, whose value differs by more than the sum may round away."""
    inputs = prepare_inputs(table.facts, rows)
    values = np.array([node.value for node in tree.nodes])
    before, after = (values[tree_leaves(table.facts, each, inputs)] for each in (tree, changed))
    sums = table_margins(table, rows)[:, tree.output].astype(table.facts.sum_type)
    largest = np.maximum(np.abs(sums), np.abs(values[np.isfinite(values)]).sum().astype(sums.dtype))
    return bool((np.abs(after - before) > np.spacing(largest)).any())


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("compiler", [*TOOLCHAINS])
def test_many_models_on_each_compiler(compiler: str) -> None:
    models = rows = different = 0
    for algorithm in ALGORITHMS:
        for seed in range(60 if compiler == "gcc" else 20):
            sample = random_model(algorithm, 10_000 + seed, largest=12 if seed % 20 else 1_000)
            different += differences(sample, seed, 4_000, compiler)
            models, rows = models + 1, rows + 4_000
    sys.stdout.write(f"{compiler}: {models} models, {rows:,} rows, {different} rows with other bits\n")
    assert different == 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_models_as_wasm() -> None:
    find_wasm()
    models = rows = different = 0
    for algorithm in ALGORITHMS:
        for seed in range(25):
            sample = random_model(algorithm, 10_000 + seed, largest=12 if seed % 20 else 200)
            table = read_trees(algorithm, sample.model, "sample")
            hard = hard_rows(table, sample.categorical, seed, 4_000)
            with tempfile.TemporaryDirectory() as folder:
                margins = wasm_margins(table, hard, Path(folder))
            different += int((~same_bits(margins, library_margins(sample, hard))).sum())
            models, rows = models + 1, rows + len(hard)
    sys.stdout.write(f"wasm: {models} models, {rows:,} rows, {different} rows with other bits\n")
    assert different == 0
