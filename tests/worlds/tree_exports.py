"""Compiles the C of sample models and scores rows with it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from skewless.infra.trees.c_source import FLAGS, write_c, write_c_test
from skewless.infra.trees.export_model import ExportModel, ModelInput
from skewless.infra.trees.native import Toolchain
from skewless.infra.trees.onnx_model import score_onnx, write_onnx
from skewless.infra.trees.table import TreeTable
from skewless.infra.trees.treelite_model import score_treelite, write_treelite
from tests.worlds.tree_models import Matrix

STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")
PACKAGES = {
    "gcc": "gcc",
    "clang": "clang",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf",
    "qemu-aarch64": "qemu-user",
    "qemu-arm": "qemu-user",
}
TOOLCHAINS = {
    "gcc": Toolchain(compiler="gcc", flags=(*FLAGS, *STRICT)),
    "clang": Toolchain(compiler="clang", flags=(*FLAGS, *STRICT)),
    "aarch64": Toolchain(compiler="aarch64-linux-gnu-gcc -static", flags=(*FLAGS, *STRICT), runner="qemu-aarch64"),
    "arm": Toolchain(compiler="arm-linux-gnueabihf-gcc -static", flags=(*FLAGS, *STRICT), runner="qemu-arm"),
}


def find_toolchain(name: str) -> Toolchain:
    """Return a toolchain of this machine; skip the test if it is not installed."""
    toolchain = TOOLCHAINS[name]
    for command in (toolchain.compiler, toolchain.runner):
        program = (shlex.split(command) or [""])[0]
        if program and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {PACKAGES[program]}")
    return toolchain


def exported(table: TreeTable, name: str = "sample") -> ExportModel:
    """Return a model with the names of the table's features."""
    inputs = [ModelInput(name=each, dtype="float64") for each in table.facts.feature_names]
    return ExportModel(name=name, version="000001", package="0" * 64, table=table, inputs=inputs, note="A test.")


def c_scores(table: TreeTable, rows: Matrix, folder: Path, toolchain: Toolchain) -> Matrix:
    """Return what the C of a table gives: margins, and then predictions if it has any, ``(n, n_numbers)``."""
    model = exported(table)
    some = np.zeros((1, table.facts.n_outputs))
    for name, data in {**write_c(model), **write_c_test(model, rows[:1], some)}.items():
        (folder / name).write_bytes(data)
    return toolchain.score([folder / "sample.c", folder / "sample_test.c"], rows)


def onnx_scores(table: TreeTable, rows: Matrix, folder: Path) -> Matrix:
    """Return what the ONNX of a table gives: margins, and then predictions if it has any, ``(n, n_numbers)``."""
    path = folder / "sample.onnx"
    path.write_bytes(write_onnx(exported(table)))
    return score_onnx(path, rows)


def treelite_scores(table: TreeTable, rows: Matrix, folder: Path) -> Matrix:
    """Return what the Treelite model of a table gives: margins, and then predictions if it has any, ``(n, n_numbers)``.

    Raises:
        PackageError: Treelite cannot express the model.
    """
    path = folder / "sample.tl"
    path.write_bytes(write_treelite(exported(table)))
    return score_treelite(path, rows)
