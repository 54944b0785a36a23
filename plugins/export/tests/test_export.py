"""An export has a signed certificate, which finds each change of its files, of its scores and of its signer."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from plugins.export.tests.tree_exports import find_toolchain
from skewless.contract.dtypes import DType
from skewless.contract.errors import ConflictError, PackageError, PlaceError, RequestError
from skewless.infra.models.packages.package import open_package
from skewless.infra.models.packages.signing import trusted_documents
from skewless_export import export as exporting
from skewless_export import targets, treelite_model, triton_repository
from skewless_export.export import certify, export
from skewless_export.export_certificate import ExportCertificate
from skewless_export.export_model import ExportModel
from skewless_export.table import NumberType, Tree, TreeFacts, TreeTable
from tests.worlds.command_line import run
from tests.worlds.trained import MODEL, Sandbox


def plant(place: Sandbox, folder: Path, data: bytes, name: str = "fraud.c") -> None:
    """Replace a file of an export, and sign a certificate of it, as a bug of the writer would."""
    (folder / name).write_bytes(data)
    path = folder / "certificate.json"
    body = json.loads(path.read_text())
    body["files"][name] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(body))
    signer = place.project.store.signer
    (folder / "signature.json").write_bytes(signer.sign(path.read_bytes(), "export certificate"))


def test_a_threshold_that_is_off_by_one_unit_is_found(place: Sandbox, tmp_path: Path) -> None:
    find_toolchain("gcc")
    folder = tmp_path / "out"
    written = export(place.project, MODEL, to="c", out=folder)
    certificate = written.certificate
    assert certificate.tested == certificate.nodes > 100
    assert {*certificate.kinds} >= {"reference", "random", "nodes", "odd categories"}
    assert certificate.scores.different == 0
    assert written.size == sum(path.stat().st_size for path in folder.iterdir())
    assert certify(place.project, folder).error is None
    source = (folder / "fraud.c").read_text()
    places = list(re.finditer(r"x\[\d+\] (?:<=|>) (0x1\.[0-9a-f]+p[+-]\d+)", source))
    at = int(np.random.default_rng(0).integers(len(places)))
    found = places[at]
    other = np.nextafter(float.fromhex(found[1]), np.inf if at % 2 else -np.inf)
    # Without site-packages and without the folder of the repository.
    command = [sys.executable, "-I", "-S", str(folder / "certify.py")]
    script = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert re.match(r"0 of \d+ rows have another raw score", script.stdout)
    plant(place, folder, (source[: found.start(1)] + float(other).hex() + source[found.end(1) :]).encode())
    said = run("certify", folder / "certificate.json", "--repo", place.repo)
    assert (said.code, said.stdout.splitlines()[0]) == (8, "certificate"), found[0]
    different = re.search(r"has other raw scores than the library for (\d+) of (\d+) rows", said.stderr)
    assert different is not None
    assert (int(different[1]) > 0, int(different[2])) == (True, certificate.scores.rows)
    script = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert script.returncode == 1
    assert f"{different[1]} of {different[2]} rows have another" in script.stdout
    (folder / "fraud.h").write_text("")
    altered = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (altered.returncode, altered.stdout) == (1, "fraud.h is not the file of the certificate\n")


def test_a_threshold_of_onnx_that_is_off_by_one_unit_is_found(place: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    certificate = export(place.project, MODEL, to="onnx", out=folder).certificate
    assert certificate.scores.different == 0
    assert certificate.predictions
    assert certify(place.project, folder).error is None
    script = subprocess.run([sys.executable, folder / "certify.py"], capture_output=True, text=True, check=True)
    assert script.stdout.startswith("0 of ")
    model = onnx.load(folder / "fraud.onnx")
    (splits,) = (each for node in model.graph.node for each in node.attribute if each.name == "nodes_splits")
    thresholds = onnx.numpy_helper.to_array(splits.t).copy()
    thresholds[7] = np.nextafter(thresholds[7], np.inf)
    splits.t.CopyFrom(onnx.numpy_helper.from_array(thresholds))
    plant(place, folder, model.SerializeToString(), "fraud.onnx")
    repeated = certify(place.project, folder)
    assert repeated.certificate.scores.different > 0


# In make test, test_tree_exports.py has the ranks, and a certificate of C finds what is off in a file, as above.
@pytest.mark.soak
def test_a_wrong_rank_of_an_edge_export_is_found(place: Sandbox, tmp_path: Path) -> None:
    find_toolchain("gcc")
    folder = tmp_path / "out"
    certificate = export(place.project, MODEL, to="edge", out=folder).certificate
    assert certificate.tested == certificate.nodes > 100
    assert certificate.scores.different == 0
    sizes = [
        int(number.replace(",", "")) for number in re.findall(r"[\d,]+(?= bytes|\))", certificate.measured["code"])
    ]
    assert sizes[0] < sizes[1] / 5
    assert {*certificate.measured} == {"code", "data", "ram", "row"}
    source = (folder / "fraud.c").read_text()
    start = source.index("node_ranks[] = {") + len("node_ranks[] = {\n    ")
    rank = re.match(r"\d+", source[start:])
    assert rank is not None
    plant(place, folder, (source[:start] + str(int(rank[0]) + 1) + source[start + len(rank[0]) :]).encode())
    repeated = certify(place.project, folder)
    assert repeated.certificate.scores.different > 0
    assert re.search("has other raw scores than the library", str(repeated.error))
    script = subprocess.run([sys.executable, folder / "certify.py"], capture_output=True, text=True, check=False)
    assert script.returncode == 1
    assert f"{repeated.certificate.scores.different} of " in script.stdout


def test_a_model_of_treelite_is_certified_again(place: Sandbox, tmp_path: Path) -> None:
    pytest.importorskip("treelite", reason="treelite is not installed: pip install 'skewless[treelite]'")
    folder = tmp_path / "out"
    certificate = export(place.project, MODEL, to="treelite", out=folder).certificate
    assert (certificate.scores.different, certificate.predictions) == (0, True)
    assert certificate.scores.rows > 1_000
    assert certify(place.project, folder).error is None


def test_a_threshold_of_treelite_that_is_off_by_one_unit_is_found(
    place: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("treelite", reason="treelite is not installed: pip install 'skewless[treelite]'")
    build = treelite_model.build_checkpoint

    def build_another(facts: TreeFacts, trees: list[Tree], number_type: NumberType) -> bytes:
        nodes = list(trees[3].nodes)
        (at, *_) = (at for at, node in enumerate(nodes) if node.test == "<=" and node.threshold > 1)
        nodes[at] = nodes[at]._replace(threshold=float(np.nextafter(nodes[at].threshold, np.inf)))
        return build(facts, [*trees[:3], Tree(trees[3].output, tuple(nodes)), *trees[4:]], number_type)

    monkeypatch.setattr(treelite_model, "build_checkpoint", build_another)
    with pytest.raises(PackageError, match=r"has other raw scores than the library for \d+ of \d+ rows"):
        export(place.project, MODEL, to="treelite", out=tmp_path / "out")


def test_a_repository_of_triton_is_refused_with_the_rows_that_it_changes(
    place: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("treelite", reason="treelite is not installed: pip install 'skewless[treelite]'")
    folder = tmp_path / "out"
    with pytest.raises(PackageError, match=r"changes \d+ of \d+ scores by more than 1e-05, by up to 0\.\d+") as refusal:
        export(place.project, MODEL, to="triton", out=folder)
    assert len(re.findall(r"row \d+ \(input \d+ is [^)]+\) scores \[0\.\d+\], not \[0\.\d+\]", str(refusal.value))) == 3
    assert not folder.exists()
    # As if all features had single precision.
    monkeypatch.setattr(triton_repository, "_EXACT", {*DType})
    certificate = export(place.project, MODEL, to="triton", out=folder).certificate
    assert (certificate.scores.bound, certificate.scores.beyond) == (1e-5, 0)
    assert certificate.tools["triton"].startswith("was not run. Emulated: ")
    assert {*certificate.files} == {"fraud/1/checkpoint.tl", "fraud/config.pbtxt", "rows.bin.gz", "certify.py"}
    assert "dims: [ 1 ]" in (folder / "fraud" / "config.pbtxt").read_text()
    assert certify(place.project, folder).error is None
    (folder / "fraud" / "config.pbtxt").write_text("")
    with pytest.raises(PackageError, match="has an altered file"):
        certify(place.project, folder)


def test_only_signed_and_whole_exports_are_certified(place: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export(place.project, MODEL, to="table", out=folder)
    text, signature = (folder / "certificate.json").read_bytes(), (folder / "signature.json").read_bytes()
    (folder / "certificate.json").write_bytes(text.replace(b'"different": 0', b'"different": 1'))
    with pytest.raises(PackageError, match="has a signature of another certificate"):
        certify(place.project, folder)
    (folder / "certificate.json").write_bytes(text)
    # The signature of a manifest by the same key is not one of a certificate.
    (folder / "signature.json").write_bytes(place.project.store.signer.sign(text))
    with pytest.raises(PackageError, match="has a signature of another certificate"):
        certify(place.project, folder)
    (folder / "signature.json").unlink()
    with pytest.raises(PackageError, match="is not signed"):
        certify(place.project, folder)
    (folder / "signature.json").write_bytes(signature)
    (folder / "rows.bin.gz").write_bytes(b"")
    with pytest.raises(PackageError, match=r"has an altered file \(got 'rows.bin.gz'\)"):
        certify(place.project, folder)
    (folder / "rows.bin.gz").unlink()
    with pytest.raises(PlaceError, match=r"rows\.bin\.gz: cannot be read"):
        certify(place.project, folder)
    for key in trusted_documents(place.project.state).names():
        trusted_documents(place.project.state).delete(key)
    with pytest.raises(PackageError, match="is signed by a key that is not trusted"):
        certify(place.project, folder)


def test_an_export_with_other_scores_is_not_written(
    place: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_single_precision(model: ExportModel, *_: object) -> dict[str, bytes]:
        nodes = model.table.nodes
        values = model.table.column("threshold").astype(np.float32).astype(np.float64).tolist()
        changed = nodes.set_column(nodes.schema.get_field_index("threshold"), nodes.schema.field("threshold"), [values])
        return {f"{model.identifier}.parquet": TreeTable(facts=model.table.facts, nodes=changed).to_bytes()}

    rounded = replace(targets.TARGETS["table"], write=in_single_precision)
    monkeypatch.setattr(targets, "TARGETS", {"table": rounded})
    with pytest.raises(PackageError, match=r"has other raw scores than the library for \d+ of \d+ rows") as refusal:
        export(place.project, MODEL, to="table", out=tmp_path / "out")
    assert "not [" in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_exports_that_are_refused(place: Sandbox, tmp_path: Path) -> None:
    project = place.project
    with pytest.raises(RequestError, match=r"option --to: is unknown \(got 'tape'\)"):
        export(project, MODEL, to="tape")
    with pytest.raises(RequestError, match="model: is unknown"):
        export(project, "none", to="table")
    with pytest.raises(PackageError, match="has no such version"):
        export(project, MODEL, "000009", to="table", out=tmp_path / "out")
    with pytest.raises(ConflictError, match="exists"):
        export(project, MODEL, to="table", out=tmp_path)
    with pytest.raises(PlaceError, match="compiler: is not installed"):
        export(project, MODEL, to="c", out=tmp_path / "out", compiler="nosuchcc")
    dry = export(project, MODEL, to="table", out=tmp_path / "out", training_rows=50, dry_run=True)
    assert dry.certificate.kinds["training"] == 50
    assert not list(tmp_path.glob("out*"))


def test_an_export_says_which_actions_are_not_in_it(place: Sandbox) -> None:
    package = open_package(place.project.store, MODEL, "000001")
    assert "not in it" not in exporting._describe(package).note
    deciding = replace(package, spec=replace(package.spec, decisions={"decline": 0.5}))
    assert (
        "It gives scores, and no actions: decisions of the model's spec are not in it."
        in exporting._describe(deciding).note
    )


def test_a_certificate_is_read_as_it_was_written(place: Sandbox, tmp_path: Path) -> None:
    written = export(place.project, MODEL, to="table", out=tmp_path / "out").certificate
    assert ExportCertificate.from_bytes(written.to_bytes()) == written
    assert "payment_time__hour" in written.note
    for text in (b"", b"[]", b'{"format": 2}', written.to_bytes().replace(b'"rows.bin.gz"', b'"../rows.bin.gz"')):
        with pytest.raises(PackageError, match="certificate: cannot be read"):
            ExportCertificate.from_bytes(text)
