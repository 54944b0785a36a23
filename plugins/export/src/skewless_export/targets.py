"""The targets of an export: how the files of each are written, and scored to certify them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from skewless.contract.names import check_known
from skewless.infra.models.runtimes.port import Matrix, Scores
from skewless_export import c_source, onnx_model, treelite_model, triton_repository, wasm
from skewless_export.edge_source import write_edge
from skewless_export.evaluate import table_margins
from skewless_export.export_model import ExportModel
from skewless_export.footprint import measure_c
from skewless_export.native import Toolchain
from skewless_export.table import TreeTable


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


def _c_target(name: str, write: Callable[[ExportModel], Mapping[str, bytes]]) -> ExportTarget:
    """Return a target of C sources, which a test program scores."""
    return ExportTarget(
        name=name,
        write=lambda model, rows, margins: {**write(model), **c_source.write_c_test(model, rows, margins)},
        score=lambda folder, stem, rows, toolchain: toolchain.score(
            [folder / f"{stem}.c", folder / f"{stem}_test.c"], rows
        ),
        tools=_c_tools,
        flags=c_source.FLAGS,
    )


def _c_tools(toolchain: Toolchain) -> Mapping[str, str]:
    return {
        "compiler": toolchain.version(),
        "flags": " ".join(toolchain.flags),
        "target": toolchain.machine(),
        **({"runner": toolchain.runner} if toolchain.runner else {}),
    }


def _measure_edge(model: ExportModel, rows: Matrix, toolchain: Toolchain) -> Mapping[str, str]:
    edge, other = (
        measure_c(write(model), model.identifier, rows, toolchain) for write in (write_edge, c_source.write_c)
    )
    return {} if edge is None or other is None else edge.compared(other, "c")


def _target(
    name: str,
    suffix: str,
    write: Callable[[ExportModel], Mapping[str, bytes] | bytes],
    score: Callable[[Path, Matrix], Matrix],
    tools: Callable[[], Mapping[str, str]],
) -> ExportTarget:
    """Return a target that needs no compiler, and no rows in its files.

    Args:
        suffix: of the file or folder that is scored.
        write: returns all files, or the content of the only one.
    """

    def write_all(model: ExportModel, _rows: Matrix, _margins: Scores) -> Mapping[str, bytes]:
        written = write(model)
        return {f"{model.identifier}{suffix}": written} if isinstance(written, bytes) else written

    return ExportTarget(
        name=name,
        write=write_all,
        score=lambda folder, stem, rows, _: score(folder / f"{stem}{suffix}", rows),
        tools=lambda _: tools(),
    )


_TARGETS = (
    _c_target("c", c_source.write_c),
    _target("onnx", ".onnx", onnx_model.write_onnx, onnx_model.score_onnx, onnx_model.onnx_tools),
    replace(_c_target("edge", write_edge), measure=_measure_edge),
    _target(
        "table",
        ".parquet",
        lambda model: model.table.to_bytes(),
        lambda path, rows: table_margins(TreeTable.read(path), rows),
        lambda: {"numpy": np.__version__},
    ),
    _target("wasm", ".wasm", wasm.write_wasm, wasm.wasm_scores, wasm.wasm_tools),
    _target(
        "treelite", ".tl", treelite_model.write_treelite, treelite_model.score_treelite, treelite_model.treelite_tools
    ),
    replace(
        _target(
            "triton",
            "",
            triton_repository.write_triton,
            triton_repository.emulate_triton,
            lambda: {**treelite_model.treelite_tools(), "triton": triton_repository.EMULATION},
        ),
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
