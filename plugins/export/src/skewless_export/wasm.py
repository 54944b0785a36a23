"""Compiles a model's C to WebAssembly without imports, scores rows with it, and writes a page that uses it.

The module exports its memory, the addresses ``inputs`` and ``outputs``, and ``score``, which reads the inputs of a row
and writes its margins, and then its predictions if there are any, all as little-endian doubles.
"""

from __future__ import annotations

import html
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np

from skewless.contract.errors import PlaceError
from skewless.infra.models.runtimes.port import Matrix
from skewless_export.c_link import link_lines
from skewless_export.c_source import FLAGS, write_c
from skewless_export.export_model import ExportModel, ModelInput
from skewless_export.native import Toolchain

_EXPORTS = ("score", "inputs", "outputs")
# The exponential comes from wasi-libc, whose functions of numbers need no system.
COMPILER = Toolchain(
    compiler="clang",
    flags=(
        *FLAGS,
        "--target=wasm32-wasi",
        "-nostartfiles",
        "-nodefaultlibs",
        "-Wl,--no-entry",
        "-Wl,--strip-all",
        *(f"-Wl,--export={name}" for name in _EXPORTS),
        "-lc",
    ),
)


def write_wasm(model: ExportModel) -> dict[str, bytes]:
    """Return the module, its C, and a page with its script, by file name.

    Raises:
        PlaceError: the compiler is missing or fails.
    """
    facts, stem = model.table.facts, model.identifier
    has_link = bool(link_lines(facts, stem))
    values = {
        "NAME": stem,
        "UPPER": stem.upper(),
        "PREDICT": f"    {stem}_predict(inputs, outputs + {stem.upper()}_OUTPUTS);\n" if has_link else "",
        "N": str(facts.n_features),
        "K": str(facts.n_outputs),
        "KINDS": "2" if has_link else "1",
        "TITLE": html.escape(f"{model.name} {model.version}"),
        "PACKAGE": model.package,
        "NOTE": html.escape(model.note),
        "FIELDS": "\n".join(map(_field, model.inputs)),
    }
    sources = {**write_c(model), f"{stem}_wasm.c": _fill(_MODULE, values)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, data in sources.items():
            (folder / name).write_bytes(data)
        _check_compiler()
        COMPILER.build([folder / name for name in sources if name.endswith(".c")], folder / "model.wasm")
        module = (folder / "model.wasm").read_bytes()
    page = {"index.html": _fill(_PAGE, values), f"{stem}.js": _fill(_SCRIPT, values)}
    return {**sources, **page, f"{stem}.wasm": module}


def wasm_scores(path: Path, rows: Matrix) -> Matrix:
    """Return what a module gives for rows, shape ``(n, n_numbers)``.

    Raises:
        PlaceError: wasmtime is not installed.
    """
    wasmtime = _wasmtime()
    store = wasmtime.Store()
    exports = wasmtime.Instance(store, wasmtime.Module.from_file(store.engine, str(path)), []).exports(store)
    memory, score = exports["memory"], exports["score"]
    inputs, outputs = (exports[name].value(store) for name in _EXPORTS[1:])
    data = rows.astype("<f8")
    scored = []
    for row in data:
        memory.write(store, row.tobytes(), inputs)
        count = score(store)
        scored.append(bytes(memory.read(store, outputs, outputs + 8 * count)))
    return np.frombuffer(b"".join(scored), dtype="<f8").reshape(len(rows), -1).astype(np.float64)


def wasm_tools() -> Mapping[str, str]:
    """Return the names and versions of the compiler and of the runtime that certifies."""
    _wasmtime()
    compiler = {} if shutil.which(COMPILER.compiler) is None else {"compiler": COMPILER.version()}
    return {**compiler, "flags": " ".join(COMPILER.flags), "wasmtime": version("wasmtime")}


def _wasmtime() -> ModuleType:
    try:
        import wasmtime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PlaceError("module wasmtime", "is not installed", fix="pip install 'skewless[wasm]'") from error
    return wasmtime


def _check_compiler() -> None:
    missing = [name for name in ("clang", "wasm-ld") if shutil.which(name) is None]
    if missing:
        fix = "install it; Debian: apt-get install clang lld wasi-libc"
        raise PlaceError("compiler of WebAssembly", "is not installed", value=missing[0], fix=fix)


def _field(given: ModelInput) -> str:
    label = html.escape(given.name)
    if not given.categories:
        return f'<label>{label} <input type="number" step="any"></label>'
    options = [f'<option value="{code}">{html.escape(word)}</option>' for code, word in enumerate(given.categories)]
    return f'<label>{label} <select><option value=""></option>{"".join(options)}</select></label>'


def _fill(text: str, values: Mapping[str, str]) -> bytes:
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], text).encode()


_MODULE = """/* The functions of the model for callers that share its memory. */
#include "@NAME@.h"

double inputs[@UPPER@_INPUTS], outputs[@KINDS@ * @UPPER@_OUTPUTS];

/* Scores the inputs; returns the number of outputs. */
int score(void);

int score(void) {
    @NAME@_margin(inputs, outputs);
@PREDICT@    return @KINDS@ * @UPPER@_OUTPUTS;
}
"""
_SCRIPT = """// Scores rows with @NAME@.wasm. Numbers are doubles; NaN is missing.
export async function loadModel() {
  const reply = await fetch(new URL("./@NAME@.wasm", import.meta.url));
  const { instance } = await WebAssembly.instantiate(await reply.arrayBuffer());
  const { memory, inputs, outputs, score } = instance.exports;
  const given = new Float64Array(memory.buffer, inputs.value, @N@);
  const scores = new Float64Array(memory.buffer, outputs.value, @KINDS@ * @K@);
  return {
    score(row) {
      if (row.length !== @N@) {
        throw new Error(`the model has @N@ inputs, not ${row.length}`);
      }
      given.set(row);
      score();
      return { inputs: [...row], margins: [...scores.slice(0, @K@)], predictions: [...scores.slice(@K@)] };
    },
  };
}

// A line of a prediction log: JSON has no NaN, no infinity and, in JavaScript, no negative zero.
export function logLine({ inputs, margins }) {
  const text = (x) => (Number.isNaN(x) ? null : Object.is(x, -0) ? "-0" : Number.isFinite(x) ? x : String(x));
  return JSON.stringify({ inputs: inputs.map(text), margins: margins.map(text) });
}
"""
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>@TITLE@</title>
<style>
  body { font: 1rem/1.5 sans-serif; margin: 2rem auto; max-width: 40rem; padding: 0 1rem; }
  label { display: flex; justify-content: space-between; gap: 1rem; margin: .3rem 0; overflow-wrap: anywhere; }
  output { display: block; margin: 1rem 0; font-family: monospace; }
</style>
<main>
<h1>@TITLE@</h1>
<p>@NOTE@ An empty field is missing. The browser scores the vector; nothing leaves this page.</p>
<form>
@FIELDS@
<button>Score</button>
</form>
<output>&nbsp;</output>
<a id="log" download="@NAME@.jsonl">Download the log of predictions</a>
</main>
<script type="module">
  import { loadModel, logLine } from "./@NAME@.js";
  const model = await loadModel();
  const lines = [];
  document.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = [...event.target.querySelectorAll("input, select")];
    const scored = model.score(fields.map((field) => (field.value === "" ? NaN : Number(field.value))));
    const shown = scored.predictions.length ? ["prediction", scored.predictions] : ["raw score", scored.margins];
    document.querySelector("output").textContent = `${shown[0]} ${shown[1].join(", ")}`;
    lines.push(logLine(scored));
    document.querySelector("#log").href = URL.createObjectURL(new Blob(lines.map((line) => line + "\\n")));
  });
  document.body.dataset.ready = "yes";
</script>
</html>
"""
