"""Predictions that a device has logged are proved against the package: one wrong bit, or another model, is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plugins.export.tests.tree_exports import find_toolchain, find_wasm
from skewless.contract.errors import PackageError, SourceError
from skewless.infra.models.packages.package import open_package
from skewless_export.export import certify, export
from skewless_export.wasm import wasm_scores
from tests.worlds.command_line import run
from tests.worlds.trained import MODEL, Sandbox
from tests.worlds.tree_models import Matrix

_EVENTS = 40


def events(place: Sandbox) -> Matrix:
    """Return vectors that a device meets, with special numbers and missing values."""
    version = place.project.packages.list_versions(MODEL)[0]
    rows: Matrix = open_package(place.project.store, MODEL, version).reference.rows[:_EVENTS].copy()
    rows[0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    return rows


def texts(values: Matrix) -> list[float | str | None]:
    return [None if np.isnan(x) else float(x).hex() if np.isinf(x) else float(x) for x in values]


def write_log(path: Path, rows: Matrix, margins: Matrix) -> None:
    pairs = zip(rows, margins, strict=True)
    lines = [json.dumps({"event": "e", "inputs": texts(row), "margins": texts(each)}) for row, each in pairs]
    path.write_text("".join(f"{line}\n" for line in lines))


# In make test, of one target: the predictions are compared with the library's, whatever program made them.
@pytest.mark.parametrize("target", [pytest.param("edge", marks=pytest.mark.soak), "wasm"])
def test_a_wrong_prediction_is_found(target: str, place: Sandbox, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "device.jsonl"
    if target == "wasm":
        find_wasm()
    toolchain = find_toolchain("gcc")
    export(place.project, MODEL, to=target, out=folder)
    rows = events(place)
    if target == "wasm":
        scores = wasm_scores(folder / "fraud.wasm", rows)
    else:
        scores = toolchain.score([folder / "fraud.c", folder / "fraud_test.c"], rows)
    margins = scores[:, :1].copy()
    write_log(log, rows, margins)
    proved = certify(place.project, folder, predictions=log)
    assert (proved.error, proved.certificate.scores.rows) == (None, _EVENTS)
    assert run("certify", folder, "--predictions", log, "--repo", place.repo).code == 0
    margins[17] = np.nextafter(margins[17], 9)
    write_log(log, rows, margins)
    proved = certify(place.project, folder, predictions=log)
    assert [each.row for each in proved.certificate.scores.examples] == [17]
    said = run("certify", folder, "--predictions", log, "--repo", place.repo)
    assert said.code == 8
    assert "has other raw scores than the library for 1 of 40 rows" in said.stderr
    assert "find out which program and model the device runs" in said.stderr


def test_a_log_of_another_model_is_refused(place: Sandbox, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "device.jsonl"
    export(place.project, MODEL, to="table", out=folder)
    write_log(log, events(place)[:, 1:], np.zeros((_EVENTS, 1)))
    with pytest.raises(SourceError, match=r"has a line that is not a prediction of this model \(got 'line 1'\)"):
        certify(place.project, folder, predictions=log)
    for text, problem in (("", "has no prediction"), ("{}\n", "not a prediction"), ("[]\n", "not a prediction")):
        log.write_text(text)
        with pytest.raises(SourceError, match=problem):
            certify(place.project, folder, predictions=log)
    with pytest.raises(SourceError, match="cannot be read"):
        certify(place.project, folder, predictions=tmp_path / "none")
    # A certificate that a trusted key has signed, of a package that is another here.
    path = folder / "certificate.json"
    path.write_bytes(path.read_bytes().replace(b'"package": "', b'"package": "0'))
    (folder / "signature.json").write_bytes(place.project.store.signer.sign(path.read_bytes(), "export certificate"))
    write_log(log, events(place), np.zeros((_EVENTS, 1)))
    with pytest.raises(PackageError, match="is not the one of the export"):
        certify(place.project, folder, predictions=log)
