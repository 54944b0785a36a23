"""A version goes from one environment to the next by the digest of its bundle, with approvals and a card of facts."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, GateError, PackageError, PlaceError, RequestError, StoreError
from skewless.infra.models.packages.approvals import Approvals
from skewless.infra.models.packages.package import open_package, verify_folder
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.operations.state import bundle as bundles
from skewless.project import Project
from tests.worlds.command_line import done, fingerprint, run


@pytest.fixture
def staging(stages: dict[str, Path]) -> Path:
    """The first environment, which no test changes."""
    return stages["unasked"]


@pytest.fixture
def bundle(staging: Path, tmp_path: Path) -> tuple[Path, str]:
    """A bundle of the first environment, and its digest."""
    path = tmp_path / "fraud.tar.gz"
    return path, done("bundle", path, "fraud", "--repo", staging)["digest"]


@pytest.fixture
def production(applied: Path, staging: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second environment, which trusts its own key and that of the first."""
    keys = [done("sign", "--repo", repo)["key"] for repo in (staging, applied)]
    monkeypatch.setenv("SKEWLESS_TRUSTED_KEYS", json.dumps(keys))
    return applied


def test_a_version_is_adopted_approved_and_promoted(
    staging: Path, production: Path, bundle: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = bundle
    monkeypatch.setenv("SKEWLESS_APPROVALS", "2")
    try:
        before = fingerprint(production / ".skewless")
        dry = done("adopt", path, "fraud", "--digest", digest, "--dry-run", "--repo", production)
        assert (dry["version"], dry["is_new"], fingerprint(production / ".skewless")) == (None, True, before)
        first = done("adopt", path, "fraud", "--digest", digest, "--repo", production)
        again = done("adopt", path, "fraud", "--digest", digest, "--repo", production)
        assert (first["version"], first["is_new"], again["version"], again["is_new"]) == (
            "000001",
            True,
            "000001",
            False,
        )
        done("materialize", "--repo", production)
        for by in ("ada", "ada"):
            refused = run("promote", "fraud", "--repo", production)
            assert (refused.code, "of 2 approvals" in refused.stdout) == (GateError.exit_code, True)
            done("approve", "fraud", "--by", by, "--reason", "slices | looked at", "--repo", production)
        assert "has 1 of 2 approvals" in run("promote", "fraud", "--repo", production).stdout  # one person, twice
        done("approve", "fraud", "000001", "--by", "bo", "--reason", "<b>ticket</b>\n| 7", "--repo", production)
        assert done("promote", "fraud", "--repo", production)["way"] == "at_once"
        card = done("card", "fraud", "--repo", production)
        assert [item["by"] for item in card["approvals"]] == ["ada", "ada", "bo"]
        with Project(staging) as here, Project(production) as there:
            given, taken = (open_package(project.store, "fraud", "000001") for project in (here, there))
            contents = [
                verify_folder(package.path, "fraud", "000001", project.store.trust).content
                for package, project in ((given, here), (taken, there))
            ]
        assert contents == [first["content"]] * 2
        origin = {"bundle": digest, "version": "000001", "manifest": given.digest}
        assert (card["origin"], card["aliases"], card["digest"]) == (origin, ["champion"], taken.digest)
    finally:
        PrivateServer(production / ".skewless").stop()


def test_an_adoption_that_cannot_store_the_origin_adds_no_version(
    production: Path, bundle: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("database", "is unavailable", fix="start it")

    path, digest = bundle
    monkeypatch.setattr(Approvals, "put_origin", fail)
    assert run("adopt", path, "fraud", "--digest", digest, "--repo", production).code == StoreError.exit_code
    with Project(production) as project:
        assert project.packages.list_versions("fraud") == []


def test_the_card_has_the_facts_of_the_package(staging: Path) -> None:
    said = run("card", "fraud", "000001", "--repo", staging)
    with Project(staging) as project:
        package = open_package(project.store, "fraud", "000001")
    assert f"sha256:{package.digest}" in said.stdout
    assert f"{package.fingerprint['train_rows']:,} rows trained" in said.stdout
    for name in package.about["importance"]:
        assert f"| {name} |" in said.stdout
    for metric in ("auc", "brier"):
        assert f"| {metric} | {package.metrics[metric]:.4f}".rstrip("0") in said.stdout
    assert said.stdout.endswith("None.\n")


def test_names_and_reasons_of_people_stay_in_their_cell(unasked: Path) -> None:
    done("approve", "fraud", "--by", "a|b", "--reason", "see [x](y) <img src=z>\n## Approvals `", "--repo", unasked)
    *_, row = run("card", "fraud", "--repo", unasked).stdout.splitlines()
    assert row.endswith(r"| a\|b | see \[x](y) &lt;img src=z> ## Approvals \` |")
    for words in (["--by", " ", "--reason", "x"], ["--by", "x", "--reason", "y" * 1_001]):
        assert run("approve", "fraud", *words, "--repo", unasked).code == RequestError.exit_code


def test_a_bundle_that_is_not_the_one_is_refused(
    production: Path, bundle: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, digest = bundle
    (tmp_path / "no.tar.gz").write_bytes(b"no archive")
    before = fingerprint(production / ".skewless")
    for words, kind in (
        ((path, "fraud", "--digest", "0" * 64), ConflictError),
        ((path, "pricing", "--digest", digest), RequestError),
        ((tmp_path / "no.tar.gz", "fraud", "--digest", digest), PlaceError),
        ((tmp_path / "nothing", "fraud", "--digest", digest), PlaceError),
        ((tmp_path, "fraud", "--digest", digest), PlaceError),
    ):
        assert run("adopt", *words, "--repo", production).code == kind.exit_code, words
    monkeypatch.delenv("SKEWLESS_TRUSTED_KEYS")
    said = run("adopt", path, "fraud", "--digest", digest, "--repo", production)
    assert (said.code, "trusted_keys" in said.stderr) == (PackageError.exit_code, True)
    monkeypatch.setattr(bundles, "MOST_BYTES", 1_000)
    said = run("adopt", path, "fraud", "--digest", digest, "--repo", production)
    assert (said.code, "1,000 bytes" in said.stderr) == (PlaceError.exit_code, True)
    assert fingerprint(production / ".skewless") == before


# In make test, fewer changes, with each code among them.
@pytest.mark.parametrize("seeds", [range(16), pytest.param(range(16, 100), marks=pytest.mark.soak)])
def test_an_altered_bundle_is_never_adopted(
    production: Path, bundle: tuple[Path, str], tmp_path: Path, seeds: range
) -> None:
    """A flipped byte, a file that is missing, renamed, added or a link: refused, or the same contents."""
    (path, digest), codes = bundle, set[int]()
    content = done("adopt", path, "fraud", "--digest", digest, "--dry-run", "--repo", production)["content"]
    before = fingerprint(production / ".skewless")
    for seed in seeds:
        target = tmp_path / f"{seed}.tar.gz"
        _alter(path, target, random.Random(seed))
        said = run("adopt", target, "fraud", "--digest", digest, "--dry-run", "--json", "--repo", production)
        codes.add(said.code)
        assert said.body["content"] == content if said.code == 0 else said.body["error"]["fix"], seed
    assert codes == {0, ConflictError.exit_code, PackageError.exit_code, PlaceError.exit_code}
    assert fingerprint(production / ".skewless") == before
    assert not (tmp_path / "outside").exists()


def _alter(source: Path, target: Path, draw: random.Random) -> None:
    """Write an archive with one change."""
    with tarfile.open(source) as old:
        files = {item.name: old.extractfile(item).read() for item in old if item.isfile()}  # type: ignore[union-attr]
    name = draw.choice((draw.choice(sorted(files)), "bundle.json"))
    way = draw.choice(("flip", "remove", "rename", "add", "link", "outside", "cut"))
    if way == "flip" and files[name]:
        data = bytearray(files[name])
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        files[name] = bytes(data)
    elif way == "remove":
        del files[name]
    elif way == "rename":
        files[f"{name}.x"] = files.pop(name)
    elif way == "add":
        files["packages/fraud/000001/more.py"] = b"raise SystemExit"
    elif way == "outside":
        files["../outside"] = b"x"
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as new:
        for each, content in files.items():
            item = tarfile.TarInfo(each)
            if way == "link" and each == name:
                item.type, item.linkname = tarfile.SYMTYPE, "/etc/hostname"
                new.addfile(item)
                continue
            item.size = len(content)
            new.addfile(item, io.BytesIO(content))
    packed = gzip.compress(raw.getvalue())
    target.write_bytes(packed[: len(packed) // 2] if way == "cut" else packed)
