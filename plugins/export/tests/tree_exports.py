"""Compiles the C of sample models and scores rows with it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from skewless_export.c_source import FLAGS, write_c, write_c_test
from skewless_export.export_model import ExportModel, ModelInput
from skewless_export.native import Toolchain
from skewless_export.onnx_model import score_onnx, write_onnx
from skewless_export.table import TreeTable
from skewless_export.treelite_model import score_treelite, write_treelite
from skewless_export.wasm import wasm_scores, write_wasm
from tests.worlds.tree_models import Matrix

Writer = Callable[[ExportModel], dict[str, bytes]]
Change = Callable[[str], str]
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


def find_wasm() -> None:
    """Skip the test if this machine cannot compile or run WebAssembly."""
    for program, package in (("clang", "clang"), ("wasm-ld", "lld")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {package} wasi-libc")
    if not Path("/usr/lib/wasm32-wasi/libc.a").is_file():
        pytest.skip("wasi-libc is not installed: apt-get install wasi-libc")
    if find_spec("wasmtime") is None:
        pytest.skip("wasmtime is not installed: pip install wasmtime")


def wasm_margins(table: TreeTable, rows: Matrix, folder: Path) -> Matrix:
    """Return the raw scores that the WebAssembly of a table gives, ``(n, n_outputs)``."""
    for name, data in write_wasm(exported(table)).items():
        (folder / name).write_bytes(data)
    return np.ascontiguousarray(wasm_scores(folder / "sample.wasm", rows)[:, : table.facts.n_outputs])


def exported(table: TreeTable, name: str = "sample") -> ExportModel:
    """Return a model with the names of the table's features."""
    inputs = [ModelInput(name=each, dtype="float64") for each in table.facts.feature_names]
    return ExportModel(name=name, version="000001", package="0" * 64, table=table, inputs=inputs, note="A test.")


def c_scores(
    table: TreeTable, rows: Matrix, folder: Path, toolchain: Toolchain, write: Writer = write_c, change: Change = str
) -> Matrix:
    """Return what the C of a table gives: margins, and then predictions if it has any, ``(n, n_numbers)``.

    Args:
        write: returns source and header.
        change: what a bug would do to the source.
    """
    model = exported(table)
    some = np.zeros((1, table.facts.n_outputs))
    for name, data in {**write(model), **write_c_test(model, rows[:1], some)}.items():
        (folder / name).write_bytes(data)
    source = folder / "sample.c"
    source.write_text(change(source.read_text()))
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
