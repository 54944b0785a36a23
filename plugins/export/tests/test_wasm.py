"""The WebAssembly of a model imports nothing, and scores with the bits of the library."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from plugins.export.tests.tree_exports import find_wasm, wasm_margins
from skewless.contract.errors import PlaceError
from skewless_export.export_model import ExportModel, ModelInput
from skewless_export.readers import read_trees
from skewless_export.table import Tree, TreeFacts, TreeTable, leaf
from skewless_export.wasm import write_wasm
from tests.worlds.tree_models import hard_rows, library_margins, random_model, same_bits


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "sklearn", "catboost"])
def test_a_module_has_the_bits_of_the_library(algorithm: str, tmp_path: Path) -> None:
    find_wasm()
    sample = random_model(algorithm, 11, largest=6)
    table = read_trees(algorithm, sample.model, "sample")
    rows = hard_rows(table, sample.categorical, 1, 400)
    assert same_bits(wasm_margins(table, rows, tmp_path), library_margins(sample, rows)).all()
    import wasmtime  # noqa: PLC0415 - may be missing

    module = wasmtime.Module.from_file(wasmtime.Engine(), str(tmp_path / "sample.wasm"))
    assert not module.imports
    assert {each.name for each in module.exports} == {"memory", "score", "inputs", "outputs"}


def test_names_cannot_change_the_page() -> None:
    find_wasm()
    facts = TreeFacts(
        algorithm="lightgbm", feature_names=("a",), n_outputs=1, objective="", link="identity", base=(0.0,)
    )
    odd = "</script><script>alert(1)</script>\"'&@NAME@"
    model = ExportModel(
        name=odd,
        version="000001",
        package="0" * 64,
        table=TreeTable.from_trees(facts, [Tree(0, (leaf(1.0),))]),
        inputs=[ModelInput(name=odd, dtype="string", categories=(odd,))],
        note=odd,
    )
    files = write_wasm(model)
    assert files["index.html"].count(b"<script") == 1
    assert b"alert(1)&lt;/script&gt;" in files["index.html"]
    assert all("/" not in name for name in files)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = TreeFacts(
        algorithm="lightgbm", feature_names=("a",), n_outputs=1, objective="", link="identity", base=(0.0,)
    )
    table = TreeTable.from_trees(facts, [Tree(0, (leaf(1.0),))])
    model = ExportModel(name="m", version="1", package="", table=table, inputs=[], note="")

    def absent(missing: str) -> Callable[[str], str | None]:
        return lambda name: None if name == missing else name

    for name in ("clang", "wasm-ld"):
        monkeypatch.setattr(shutil, "which", absent(name))
        with pytest.raises(PlaceError, match=rf"\(got '{name}'\). Fix: install it; Debian: apt-get install clang lld"):
            write_wasm(model)
