"""The targets of an export: how the files of each are written, and scored to certify them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skewless.contract.names import check_known
from skewless.infra.runtimes.port import Matrix, Scores
from skewless.infra.trees import c_source, onnx_model, treelite_model, triton_repository, wasm
from skewless.infra.trees.edge_source import write_edge
from skewless.infra.trees.evaluate import table_margins
from skewless.infra.trees.export_model import ExportModel
from skewless.infra.trees.footprint import measure_c
from skewless.infra.trees.native import Toolchain
from skewless.infra.trees.table import TreeTable


@dataclass(frozen=True, kw_only=True)
class ExportTarget:
    """One kind of export.

    Args:
        name: of the option ``--to``.
        write: returns the files of a model by name. It gets rows with the library's margins for a test file.
        score: returns the margins and then the predictions, if there are any, of rows: ``(n, n_numbers)`` float64. It
            gets the folder of the files, their stem, the rows and the compiler of C.
        tools: returns the names and versions of what ``score`` uses, for the certificate.
        flags: of a compiler of C.
        measure: returns facts of size and speed for the certificate; None: there are none.
        restrict: returns the rows as callers of the target can send them, of the same shape.
        bound: how far a prediction may be off; None: raw scores must have the bits of the library.
    """

    name: str
    write: Callable[[ExportModel, Matrix, Scores], Mapping[str, bytes]]
    score: Callable[[Path, str, Matrix, Toolchain], Matrix]
    tools: Callable[[Toolchain], Mapping[str, str]]
    flags: tuple[str, ...] = ()
    measure: Callable[[ExportModel, Matrix, Toolchain], Mapping[str, str]] | None = None
    restrict: Callable[[ExportModel, Matrix], Matrix] = lambda _, rows: rows
    bound: float | None = None


def _write_c(model: ExportModel, rows: Matrix, margins: Scores) -> Mapping[str, bytes]:
    return {**c_source.write_c(model), **c_source.write_c_test(model, rows, margins)}


def _score_c(folder: Path, stem: str, rows: Matrix, toolchain: Toolchain) -> Matrix:
    return toolchain.score([folder / f"{stem}.c", folder / f"{stem}_test.c"], rows)


def _c_tools(toolchain: Toolchain) -> Mapping[str, str]:
    return {
        "compiler": toolchain.version(),
        "flags": " ".join(toolchain.flags),
        "target": toolchain.machine(),
        **({"runner": toolchain.runner} if toolchain.runner else {}),
    }


def _write_edge(model: ExportModel, rows: Matrix, margins: Scores) -> Mapping[str, bytes]:
    return {**write_edge(model), **c_source.write_c_test(model, rows, margins)}


def _measure_edge(model: ExportModel, rows: Matrix, toolchain: Toolchain) -> Mapping[str, str]:
    edge, other = (
        measure_c(write(model), model.identifier, rows, toolchain) for write in (write_edge, c_source.write_c)
    )
    return {} if edge is None or other is None else edge.compared(other, "c")


def _write_table(model: ExportModel, rows: Matrix, margins: Scores) -> Mapping[str, bytes]:  # noqa: ARG001 - of a target
    return {f"{model.identifier}.parquet": model.table.to_bytes()}


def _score_table(folder: Path, stem: str, rows: Matrix, toolchain: Toolchain) -> Matrix:  # noqa: ARG001 - as above
    return table_margins(TreeTable.read(folder / f"{stem}.parquet"), rows)


def _table_tools(toolchain: Toolchain) -> Mapping[str, str]:  # noqa: ARG001 - as above
    return {"numpy": np.__version__}


def _write_onnx(model: ExportModel, rows: Matrix, margins: Scores) -> Mapping[str, bytes]:  # noqa: ARG001 - of a target
    return {f"{model.identifier}.onnx": onnx_model.write_onnx(model)}


def _score_onnx(folder: Path, stem: str, rows: Matrix, toolchain: Toolchain) -> Matrix:  # noqa: ARG001 - as above
    return onnx_model.score_onnx(folder / f"{stem}.onnx", rows)


def _onnx_tools(toolchain: Toolchain) -> Mapping[str, str]:  # noqa: ARG001 - as above
    return onnx_model.onnx_tools()


def _write_wasm(model: ExportModel, rows: Matrix, margins: Scores) -> Mapping[str, bytes]:  # noqa: ARG001 - as above
    return wasm.write_wasm(model)


def _score_wasm(folder: Path, stem: str, rows: Matrix, toolchain: Toolchain) -> Matrix:  # noqa: ARG001 - as above
    return wasm.wasm_scores(folder / f"{stem}.wasm", rows)


def _wasm_tools(toolchain: Toolchain) -> Mapping[str, str]:  # noqa: ARG001 - as above
    return wasm.wasm_tools()


def _write_treelite(model: ExportModel, rows: Matrix, margins: Scores) -> Mapping[str, bytes]:  # noqa: ARG001 - as above
    return {f"{model.identifier}.tl": treelite_model.write_treelite(model)}


def _score_treelite(folder: Path, stem: str, rows: Matrix, toolchain: Toolchain) -> Matrix:  # noqa: ARG001 - as above
    return treelite_model.score_treelite(folder / f"{stem}.tl", rows)


def _treelite_tools(toolchain: Toolchain) -> Mapping[str, str]:  # noqa: ARG001 - as above
    return treelite_model.treelite_tools()


def _write_triton(model: ExportModel, rows: Matrix, margins: Scores) -> Mapping[str, bytes]:  # noqa: ARG001 - as above
    return triton_repository.write_triton(model)


def _score_triton(folder: Path, stem: str, rows: Matrix, toolchain: Toolchain) -> Matrix:  # noqa: ARG001 - as above
    return triton_repository.emulate_triton(folder / stem, rows)


def _triton_tools(toolchain: Toolchain) -> Mapping[str, str]:  # noqa: ARG001 - as above
    return {**treelite_model.treelite_tools(), "triton": triton_repository.EMULATION}


_TARGETS = (
    ExportTarget(name="c", write=_write_c, score=_score_c, tools=_c_tools, flags=c_source.FLAGS),
    ExportTarget(name="onnx", write=_write_onnx, score=_score_onnx, tools=_onnx_tools),
    ExportTarget(
        name="edge",
        write=_write_edge,
        score=_score_c,
        tools=_c_tools,
        flags=c_source.FLAGS,
        measure=_measure_edge,
    ),
    ExportTarget(name="table", write=_write_table, score=_score_table, tools=_table_tools),
    ExportTarget(name="wasm", write=_write_wasm, score=_score_wasm, tools=_wasm_tools),
    ExportTarget(name="treelite", write=_write_treelite, score=_score_treelite, tools=_treelite_tools),
    ExportTarget(
        name="triton",
        write=_write_triton,
        score=_score_triton,
        tools=_triton_tools,
        restrict=triton_repository.single_precision_rows,
        bound=triton_repository.BOUND,
    ),
)
TARGETS: Mapping[str, ExportTarget] = {target.name: target for target in _TARGETS}


def find_target(name: str) -> ExportTarget:
    """Return a target by its name.

    Raises:
        RequestError: there is no such target.
    """
    check_known("option --to", name, list(TARGETS))
    return TARGETS[name]
