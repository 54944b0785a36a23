"""The page of an export to WebAssembly scores in a browser with the bits of the library."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugins.export.tests.tree_exports import exported, find_wasm
from skewless_export.readers import read_trees
from skewless_export.wasm import write_wasm
from tests.browser.visitor import Visitor, accessibility_problems
from tests.worlds.tree_models import hard_rows, library_margins, random_model, same_bits

_SCORE = """async (rows) => {
  const { loadModel, logLine } = await import("./sample.js");
  const model = await loadModel();
  return rows.map((row) => logLine(model.score(row)));
}"""


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its base
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as any static server does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def numbers(values: list[Any]) -> list[float]:
    return [np.nan if value is None else float(value) for value in values]


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost"])
def test_a_browser_has_the_bits_of_the_library(algorithm: str, visitor: Visitor, tmp_path: Path) -> None:
    find_wasm()
    sample = random_model(algorithm, 2, largest=8)
    table = read_trees(algorithm, sample.model, "sample")
    for name, data in write_wasm(exported(table)).items():
        (tmp_path / name).write_bytes(data)
    rows = hard_rows(table, sample.categorical, 5, 1_000)
    expected = library_margins(sample, rows)
    with served(tmp_path) as url, visitor.visit(url) as page:
        page.wait_for_selector("body[data-ready=yes]")
        lines = [json.loads(line) for line in page.evaluate(_SCORE, rows.tolist())]
        assert np.array_equal([numbers(line["inputs"]) for line in lines], rows, equal_nan=True)
        assert same_bits(np.array([numbers(line["margins"]) for line in lines]), expected).all()
        # The form: an empty field is missing.
        page.locator("input").first.fill("0.25")
        page.get_by_role("button", name="Score").click()
        shown = page.locator("output").inner_text()
        row = np.full((1, table.facts.n_features), np.nan)
        row[0, 0] = 0.25
        with page.expect_download() as download:
            page.get_by_text("Download the log").click()
        logged = json.loads(Path(download.value.path()).read_text())
        assert same_bits(np.array([numbers(logged["margins"])]), library_margins(sample, row)).all()
        assert shown.startswith("prediction ")
        assert not accessibility_problems(page)
