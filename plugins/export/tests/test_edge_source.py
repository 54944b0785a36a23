"""Ranks route as thresholds do, missing values and categories included, and a wrong rank is found."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from plugins.export.tests.tree_exports import TOOLCHAINS, c_scores, exported, find_toolchain
from skewless.contract.errors import PackageError
from skewless_export import edge_source
from skewless_export.edge_source import write_edge
from skewless_export.evaluate import table_margins
from skewless_export.export_rows import export_rows
from skewless_export.footprint import measure_c
from skewless_export.readers import read_trees
from skewless_export.table import Missing, NumberType, Test, Tree, TreeFacts, TreeNode, TreeTable, leaf
from tests.worlds.tree_models import Matrix, hard_rows, library_margins, random_model, same_bits, slow_margins


def facts(n_features: int, kind: NumberType = "float64") -> TreeFacts:
    names = tuple(f"x{at}" for at in range(n_features))
    return TreeFacts(
        algorithm="lightgbm",
        feature_names=names,
        n_outputs=1,
        objective="",
        link="identity",
        base=(0.0,),
        input_type=kind,
    )


def stump(test: Test, threshold: float, missing: Missing, *, left: bool, at: int, codes: tuple[int, ...] = ()) -> Tree:
    node = TreeNode(test, at, threshold, missing, left, codes, 1, 2, np.nan)
    return Tree(0, (node, leaf(1.0), leaf(2.0)))


def edge_margins(table: TreeTable, rows: Matrix, folder: Path) -> Matrix:
    scores = c_scores(table, rows, folder, find_toolchain("gcc"), write_edge)
    return np.ascontiguousarray(scores[:, : table.facts.n_outputs])


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_each_kind_of_test_routes_by_rank(kind: NumberType, tmp_path: Path) -> None:
    numbers = [-np.inf, -1.0, -5e-324, -0.0, 0.0, 1e-45, 0.1, 2.0, 3.4e38, np.inf]
    thresholds = [float(np.dtype(kind).type(each)) for each in numbers]
    missing: list[Missing] = ["none", "zero", "nan"]
    trees = [
        stump(test, threshold, rule, left=left, at=at)
        for test in ("<=", "<")
        for threshold in thresholds
        for rule in missing
        for left in (False, True)
        for at in (0, 1)
    ]
    trees += [
        stump("in", np.nan, rule, left=left, at=2, codes=codes)
        for codes in ((), (0,), (1, 7), (0, 7, 300))
        for rule in missing
        for left in (False, True)
    ]
    # Powers of two as leaves: the sum says where each tree went.
    trees = [
        Tree(0, (tree.nodes[0], leaf(2.0 ** (at % 50)), leaf(-(2.0 ** (at % 50)) * (1 + at // 50))))
        for at, tree in enumerate(trees)
    ]
    table = TreeTable.from_trees(facts(3, kind), trees)
    rows = hard_rows(table, (2,), 3, 500)
    assert same_bits(edge_margins(table, rows, tmp_path), slow_margins(table, rows)).all()


def test_ranks_get_16_bits_or_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [
        TreeTable.from_trees(facts(1), [stump("<=", at * 0.1, "nan", left=True, at=0) for at in range(count)])
        for count in (254, 255)
    ]
    for table, code in zip(tables, ("uint8_t", "uint16_t"), strict=True):
        assert f"typedef {code} code_t;" in write_edge(exported(table))["sample.c"].decode()
        rows = np.array([[at] for at in (np.nan, -1.0, 0.0, 0.05, 25.2, 25.3, 25.4, 25.5)])
        assert same_bits(edge_margins(table, rows, tmp_path), table_margins(table, rows)).all()
    monkeypatch.setattr(edge_source, "MOST_CODE", 255)
    write_edge(exported(tables[0]))
    with pytest.raises(PackageError, match="too many thresholds of an input for ranks of 16 bits"):
        write_edge(exported(tables[1]))
    mixed = [stump("<=", 1.0, "nan", left=True, at=0), stump("in", np.nan, "nan", left=True, at=0, codes=(1,))]
    with pytest.raises(PackageError, match="both number and category"):
        write_edge(exported(TreeTable.from_trees(facts(1), mixed)))


# Models whose leaves beside these tests differ, by more than the sum rounds away.
@pytest.mark.parametrize(("algorithm", "seed"), [("lightgbm", 4), ("xgboost", 8), ("sklearn", 24), ("catboost", 4)])
def test_a_rank_that_is_off_by_one_is_found(algorithm: str, seed: int, tmp_path: Path) -> None:
    sample = random_model(algorithm, seed, largest=6)
    table = read_trees(algorithm, sample.model, "sample")
    rows = export_rows(table, {}, most=100_000).matrix
    expected = library_margins(sample, rows)
    assert same_bits(edge_margins(table, rows, tmp_path), expected).all()
    found = re.search(r"node_ranks\[\] = \{([^}]*)\}", (tmp_path / "sample.c").read_text())
    assert found is not None
    ranks = [int(rank) for rank in found[1].split(",")]
    for at in (0, len(ranks) - 1):
        planted = [rank + (number == at) for number, rank in enumerate(ranks)]

        def plant(source: str, planted: list[int] = planted) -> str:
            return source.replace(found[1], ", ".join(map(str, planted)))

        scores = c_scores(table, rows, tmp_path, find_toolchain("gcc"), write_edge, plant)
        assert not same_bits(np.ascontiguousarray(scores[:, : table.facts.n_outputs]), expected).all(), at


@pytest.mark.parametrize(
    "compiler", [pytest.param(each, marks=() if each == "gcc" else pytest.mark.soak) for each in TOOLCHAINS]
)
def test_the_footprint_is_measured(compiler: str) -> None:
    toolchain = find_toolchain(compiler)
    sample = random_model("lightgbm", 11, largest=30)
    table = read_trees("lightgbm", sample.model, "sample")
    rows = hard_rows(table, sample.categorical, 1, 200)
    size = measure_c(write_edge(exported(table)), "sample", rows, toolchain)
    assert size is not None
    leaves = sum(node.is_leaf for tree in table.trees() for node in tree.nodes)
    splits = len(table.nodes) - leaves
    assert 8 * leaves + 3 * splits <= size.data < 8 * leaves + 6 * splits + 4_000
    assert 100 < size.code < 3_000
    assert 0 < size.ram < 1_000
    assert (size.row_ns is None) == bool(toolchain.runner)
    assert size.row_ns is None or 1.0 < size.row_ns < 1e6
