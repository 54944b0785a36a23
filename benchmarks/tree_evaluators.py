"""Who evaluates a model's trees: to compare one more, add a line to ``EVALUATORS``.

An evaluator opens a model file and returns the function from a matrix to raw margins, which uses one thread.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from skewless_export.export_model import ExportModel

Matrix = npt.NDArray[np.float64]
Evaluate = Callable[[Matrix], Matrix]
Algorithms = Sequence[str]
ALGORITHMS: Algorithms = ("lightgbm", "xgboost", "catboost")
LIBRARY = "the library's Python"
CBM = ".cbm"


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """One way to evaluate trees.

    Args:
        open: opens a model, given the library that trained it and its file.
        algorithms: libraries whose models it can evaluate.
        packages: Python packages and programs that it needs; where one is missing, it is left out.
        most_rows: it is not asked for more, because that would take minutes.
    """

    name: str
    open: Callable[[str, Path], Evaluate]
    algorithms: Algorithms = ALGORITHMS
    packages: Sequence[str] = ()
    programs: Sequence[str] = ()
    most_rows: int = field(default=1_000_000)

    def runs(self, algorithm: str) -> bool:
        """Return whether it can evaluate models of a library here."""
        packages = [*self.packages, algorithm]
        return (
            algorithm in self.algorithms
            and all(find_spec(package) is not None for package in packages)
            and all(shutil.which(program) is not None for program in self.programs)
        )


def _library(algorithm: str, path: Path) -> Evaluate:
    if algorithm == "lightgbm":
        import lightgbm  # noqa: PLC0415 - only where its model is evaluated

        found = lightgbm.Booster(model_file=str(path))
        return lambda rows: np.asarray(found.predict(rows, raw_score=True, num_threads=1))
    if algorithm == "xgboost":
        import xgboost  # noqa: PLC0415 - as above

        booster = xgboost.Booster(model_file=str(path))
        booster.set_param({"nthread": 1})
        return lambda rows: np.asarray(booster.inplace_predict(rows, predict_type="margin"))
    import catboost  # noqa: PLC0415 - as above

    model = catboost.CatBoost().load_model(str(path.with_suffix(CBM)))  # its reader of JSON rounds the leaves
    return lambda rows: np.asarray(model.predict(rows, prediction_type="RawFormulaVal", thread_count=1))


def _runtime(algorithm: str, path: Path) -> Evaluate:
    from skewless.infra.models.runtimes.candidates import open_runtime  # noqa: PLC0415 - after the threads are set

    return open_runtime(algorithm, path).margin


def _lignum(algorithm: str, path: Path, *, compiled: bool = False) -> Evaluate:
    from skewless_lignum.runtime import LignumRuntime  # noqa: PLC0415 - as above

    return LignumRuntime(algorithm, path, compiled=compiled).margin


def _compiled(algorithm: str, path: Path) -> Evaluate:
    return _lignum(algorithm, path, compiled=True)


def _export_model(algorithm: str, path: Path) -> ExportModel:
    from skewless_export.export_model import ExportModel, ModelInput  # noqa: PLC0415 - as above
    from skewless_export.readers import read_trees  # noqa: PLC0415 - as above

    table = read_trees(algorithm, path.read_bytes(), "model")
    inputs = [ModelInput(name=f"f{at}", dtype="float64") for at in range(table.facts.n_features)]
    return ExportModel(name="trees", version="1", package="-", table=table, inputs=inputs, note="")


def _onnx(algorithm: str, path: Path) -> Evaluate:
    """Open our export to ONNX; a call has at most 10,000 rows, because each tree's leaf is a number of its output."""
    import onnxruntime  # noqa: PLC0415 - as above

    from skewless_export.onnx_model import write_onnx  # noqa: PLC0415 - as above

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    written = write_onnx(_export_model(algorithm, path))
    session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])

    def evaluate(rows: Matrix) -> Matrix:
        starts = range(0, len(rows), _ONNX_ROWS)
        return np.concatenate([session.run(["margin"], {"x": rows[at : at + _ONNX_ROWS]})[0] for at in starts])[:, 0]

    return evaluate


def _own_c(algorithm: str, path: Path) -> Evaluate:
    from skewless_export.c_source import write_c  # noqa: PLC0415 - as above

    return _compiled_source(write_c(_export_model(algorithm, path)))


def _edge(algorithm: str, path: Path) -> Evaluate:
    from skewless_export.edge_source import write_edge  # noqa: PLC0415 - as above

    return _compiled_source(write_edge(_export_model(algorithm, path)))


def _compiled_source(files: Mapping[str, bytes]) -> Evaluate:
    """Compile C of an export, and a loop over rows, as a library."""
    from skewless_export.c_source import FLAGS  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        (folder / "loop.c").write_text(_LOOP)
        command = ["cc", *FLAGS, "-shared", "-fPIC", "-o", "trees.so", "trees.c", "loop.c", "-lm"]
        subprocess.run(command, cwd=folder, check=True)
        margins_of = ctypes.CDLL(str(folder / "trees.so")).trees_margins
    margins_of.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_long]

    def evaluate(rows: Matrix) -> Matrix:
        margins = np.empty(len(rows))
        margins_of(rows.ctypes.data, margins.ctypes.data, len(rows), rows.shape[1], 1)
        return margins

    return evaluate


_LOOP = """#include "trees.h"
void trees_margins(const double *inputs, double *margins, long rows, long width, long outputs) {
    for (long i = 0; i < rows; i++) trees_margin(inputs + i * width, margins + i * outputs);
}
"""


def _wasm(algorithm: str, path: Path) -> Evaluate:
    """Compile our export to C, and a loop over rows, to WebAssembly."""
    import wasmtime  # noqa: PLC0415 - may be missing

    from skewless_export.c_source import write_c  # noqa: PLC0415 - as above
    from skewless_export.wasm import COMPILER  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {**write_c(_export_model(algorithm, path)), "loop.c": _WASM_LOOP.encode()}
        for file, content in files.items():
            (folder / file).write_bytes(content)
        COMPILER.build([folder / file for file in files if file.endswith(".c")], folder / "trees.wasm")
        store = wasmtime.Store()
        module = wasmtime.Module.from_file(store.engine, str(folder / "trees.wasm"))
    exports: Mapping[str, Any] = wasmtime.Instance(store, module, []).exports(store)
    memory, score = exports["memory"], exports["score"]
    inputs, outputs = (exports[each].value(store) for each in ("inputs", "outputs"))

    def some(rows: Matrix) -> bytes:
        memory.write(store, rows.tobytes(), inputs)
        score(store, len(rows))
        return bytes(memory.read(store, outputs, outputs + 8 * len(rows)))

    def evaluate(rows: Matrix) -> Matrix:
        pieces = (some(rows[at : at + _WASM_ROWS]) for at in range(0, len(rows), _WASM_ROWS))
        return np.frombuffer(b"".join(pieces), dtype="<f8")

    return evaluate


_WASM_ROWS = 1_000
_WASM_LOOP = f"""#include "trees.h"
double inputs[{_WASM_ROWS} * TREES_INPUTS], outputs[{_WASM_ROWS} * TREES_OUTPUTS];
void score(int rows);
void score(int rows) {{
    for (int i = 0; i < rows; i++) trees_margin(inputs + i * TREES_INPUTS, outputs + i * TREES_OUTPUTS);
}}
"""
_ONNX_ROWS = 10_000
_BOTH = ("lightgbm", "xgboost")
EVALUATORS = (
    Evaluator(name=LIBRARY, open=_library),
    Evaluator(name="our runtime", open=_runtime),
    Evaluator(name="lignum", open=_lignum, packages=("lignum",)),
    Evaluator(name="lignum, compiled", open=_compiled, algorithms=_BOTH, packages=("lignum",), programs=("cc",)),
    Evaluator(name="our export to ONNX, ONNX Runtime", open=_onnx, packages=("onnx", "onnxruntime")),
    Evaluator(name="our export to C, gcc", open=_own_c, programs=("cc",)),
    Evaluator(name="our edge package, gcc", open=_edge, programs=("cc",)),
    Evaluator(name="our export to WASM, wasmtime", open=_wasm, packages=("wasmtime",), programs=("clang", "wasm-ld")),
)
