"""The C of a model is one file that compilers accept, and that nothing in a model's names can change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from plugins.export.tests.tree_exports import TOOLCHAINS, c_scores, exported, find_toolchain
from skewless.contract.errors import PlaceError
from skewless_export.c_source import write_c, write_c_test
from skewless_export.export_model import ExportModel, ModelInput
from skewless_export.native import Toolchain
from skewless_export.readers import read_trees
from skewless_export.table import Tree, TreeFacts, TreeNode, TreeTable, leaf
from tests.worlds.tree_models import hard_rows, library_margins, random_model, same_bits, slow_margins

FACTS = TreeFacts(algorithm="lightgbm", feature_names=("a",), n_outputs=1, objective="", link="identity", base=(0.0,))


def split(threshold: float, left: int, right: int) -> TreeNode:
    return TreeNode("<=", 0, threshold, "nan", True, (), left, right, np.nan)  # noqa: FBT003 - of a tuple


@pytest.mark.parametrize("compiler", ["gcc", pytest.param("clang", marks=pytest.mark.soak)])
def test_deep_trees_do_not_nest_deeply(compiler: str, tmp_path: Path) -> None:
    depth = 400  # compilers need not accept more than 127 levels of blocks
    nodes = [split(float(at), depth + at, at + 1) for at in range(depth - 1)]
    nodes += [split(float(depth), 2 * depth - 1, 2 * depth)]
    nodes += [leaf(float(at) + 0.1) for at in range(depth + 1)]
    table = TreeTable.from_trees(FACTS, [Tree(0, tuple(nodes))])
    rows = np.array([[-1.0], [7.5], [399.0], [1e9], [np.nan]])
    scores = c_scores(table, rows, tmp_path, find_toolchain(compiler))
    assert same_bits(np.ascontiguousarray(scores[:, :1]), slow_margins(table, rows)).all()
    assert max(len(line) - len(line.lstrip()) for line in (tmp_path / "sample.c").read_text().splitlines()) <= 12


def test_names_cannot_end_a_comment(tmp_path: Path) -> None:
    table = TreeTable.from_trees(FACTS, [Tree(0, (leaf(1.0),))])
    odd = '*/ int main(void) { return 7; } /* "\n#error ü \\'
    inputs = [ModelInput(name=odd, dtype="string", categories=(odd, "b"))]
    model = ExportModel(name="7 " + odd, version="000001", package="0" * 64, table=table, inputs=inputs, note=odd)
    files = {**write_c(model), **write_c_test(model, np.zeros((1, 1)), np.ones(1))}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert all(name.isascii() and " " not in name and "/" not in name for name in files)
    program = tmp_path / "program"
    find_toolchain("gcc").build(sorted(tmp_path.glob("*.c")), program)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    assert done.stdout == "0 of 1 rows differ\n"


def test_the_test_program_finds_a_wrong_row(tmp_path: Path) -> None:
    table = TreeTable.from_trees(FACTS, [Tree(0, (split(0.5, 1, 2), leaf(0.1), leaf(0.2)))])
    rows, margins = np.array([[0.0], [1.0]]), np.array([0.1, np.nextafter(0.2, 1)])
    for name, data in {**write_c(exported(table)), **write_c_test(exported(table), rows, margins)}.items():
        (tmp_path / name).write_bytes(data)
    find_toolchain("gcc").build(sorted(tmp_path.glob("*.c")), tmp_path / "program")
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "1 of 2 rows differ")


def test_unsafe_compilers_are_refused(tmp_path: Path) -> None:
    find_toolchain("gcc")
    table = TreeTable.from_trees(FACTS, [Tree(0, (leaf(1.0),))])
    fast = Toolchain(compiler="gcc", flags=("-std=c99", "-ffast-math"))
    with pytest.raises(PlaceError, match="ffast-math changes scores"):
        c_scores(table, np.zeros((1, 1)), tmp_path, fast)
    with pytest.raises(PlaceError, match=r"compiler: is not installed \(got 'nosuchcc'\)"):
        Toolchain(compiler="nosuchcc", flags=()).version()


@pytest.mark.parametrize(
    "compiler", [pytest.param(each, marks=pytest.mark.soak if each in {"clang", "arm"} else ()) for each in TOOLCHAINS]
)
def test_each_compiler_gives_the_bits_of_the_library(compiler: str, tmp_path: Path) -> None:
    toolchain = find_toolchain(compiler)
    for algorithm in ("lightgbm", "xgboost", "sklearn", "catboost"):
        sample = random_model(algorithm, 11, largest=6)
        table = read_trees(algorithm, sample.model, "sample")
        rows = hard_rows(table, sample.categorical, 1, 400)
        margins = np.ascontiguousarray(c_scores(table, rows, tmp_path, toolchain)[:, : table.facts.n_outputs])
        assert same_bits(margins, library_margins(sample, rows)).all(), algorithm
