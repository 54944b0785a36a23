"""The state folder is its owner's alone whatever the umask, and whichever verb makes it; doctor looks."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.settings import Settings
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.durable import make_folder
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.operations.health.checkup.machine import check_trust
from tests.worlds.command_line import done, run

VERBS = (
    ("apply",),
    ("keys", "add", "web"),
    ("sign",),
    ("status",),
    ("plan",),
    ("validate", "--record"),
    ("doctor",),
)


@pytest.fixture(params=[0o000, 0o022, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> set[str]:
    """Return the modes of a folder and of the folders below it."""
    below = [path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()]
    return {f"{stat.S_IMODE(path.stat().st_mode):03o}" for path in (folder, *below)}


def readable_by_others(folder: Path) -> dict[str, str]:
    """Return the files and folders below a folder that are not their owner's alone, with their modes."""
    found = {path: path.lstat().st_mode for path in folder.rglob("*") if not path.is_symlink()}
    return {str(path.relative_to(folder)): f"{mode:o}" for path, mode in found.items() if mode & 0o077}


def test_folders_are_their_owners_alone(tmp_path: Path, umask: int) -> None:
    make_folder(tmp_path / "state/log/view")
    assert umask in {0o000, 0o022, 0o277}
    assert modes(tmp_path / "state") == {"700"}
    (tmp_path / "state").chmod(0o750)
    make_folder(tmp_path / "state/log/other")
    assert modes(tmp_path / "state") == {"700", "750"}, "what is there stays as it is"


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_whichever_verb_makes_it(applied: Path, tmp_path: Path, verb: tuple[str, ...]) -> None:
    shutil.copytree(applied, tmp_path / "p", ignore=shutil.ignore_patterns(".skewless"))
    before = os.umask(0)
    try:
        run(*verb, "--repo", tmp_path / "p")
    finally:
        os.umask(before)
    state = tmp_path / "p/.skewless"
    assert verb[0] not in {"apply", "keys", "sign"} or state.is_dir()
    assert not state.exists() or modes(state) == {"700"}


def test_each_file_of_a_whole_walk_is_its_owners_alone(new: Path) -> None:
    row = {"card_id": 5, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}
    walk = (("apply",), ("materialize",), ("train",), ("predict", "fraud", "--row", json.dumps(row)))
    before = os.umask(0)
    try:
        for words in (*walk, ("keys", "add", "web"), ("validate", "--record"), ("apply",)):
            done(*words, "--repo", new)
            assert readable_by_others(new / ".skewless") == {}, words
    finally:
        os.umask(before)
        PrivateServer(new / ".skewless").stop()
    names = {path.name for path in (new / ".skewless").rglob("*")}
    segments = {path.relative_to(new / ".skewless") for path in (new / ".skewless").rglob("*.parquet")}
    assert {"skewless.db", "signing_key.pem", "server.log", "registry.db", "manifest.json", "appendonlydir"} <= names
    assert {path.parts[0] for path in segments} == {"log", "predictions"}


def test_a_registry_is_as_private_as_its_folder(new: Path) -> None:
    text = (new / "feature_store.yaml").read_text()
    (new / "feature_store.yaml").write_text(text.replace(".skewless/registry.db", "registry.db"))
    new.chmod(0o755)
    done("apply", "--repo", new)
    assert (new / "registry.db").stat().st_mode & 0o777 == 0o644, "Feast's tools of other users may read it"


def test_nothing_of_the_state_is_made_but_so() -> None:
    """A folder that is made in another way stands here with its reason."""
    root = Path(__file__).parents[3]
    found = {
        path.relative_to(root).as_posix(): path.read_text().count(".mkdir(")
        for package in ("skewless", "infra", "serving", "training", "validation", "plugins/platforms/src")
        for path in (root / package).rglob("*.py")
        if ".mkdir(" in path.read_text()
    }
    assert found == {
        "infra/platform/storage/durable.py": 1,
        "skewless/operations/sample.py": 1,  # data of a new project
        "infra/models/packages/writer.py": 1,  # in a folder that mkdtemp made
        "training/dataset_folder.py": 1,  # where a user says
        "serving/batch_files.py": 1,  # as above
        "validation/data_docs.py": 1,  # as above; `make_folder` has made that of the state
        "skewless/operations/init.py": 2,  # a new project
        "skewless/contract/clock.py": 1,  # the folder of a clock that is made by hand: for its owner alone, too
        "plugins/platforms/src/skewless_platforms/containers.py": 1,  # of this user, in a container
    }


def test_doctor_looks(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert list(check_trust(ProjectState(state), Settings())) == []
    make_folder(state)
    found = {}
    for mode in (0o700, 0o750, 0o770, 0o777):
        state.chmod(mode)
        (finding,) = check_trust(ProjectState(state), Settings())
        found[mode] = finding.verdict
        assert f"{mode:03o}" in finding.detail
    assert list(found.values()) == ["ok", "warn", "fail", "fail"]
    state.chmod(0o700)
    (state / "signing_key.pem").write_text("x")
    (state / "signing_key.pem").chmod(0o644)
    key = [finding for finding in check_trust(ProjectState(state), Settings()) if finding.verdict != "ok"]
    assert [(one.name, one.verdict) for one in key] == [("signing key", "fail")]


def test_packages_without_a_signature_are_signed_once(walked: Path) -> None:
    """They are refused, named, signed, and then opened."""
    version = PackageStore.of(ProjectState(walked / ".skewless"), Settings()).aliases.get("fraud", "champion")
    package = walked / f".skewless/packages/fraud/{version}"
    signature = (package / "signature.json").read_bytes()
    (package / "signature.json").unlink()
    refused = run("drift", "fraud", "--repo", walked)
    assert refused.code == 8
    for part in (f"package 'fraud' version '{version}'", "is not signed", "skewless sign"):
        assert part in refused.stderr
    tried = json.loads(run("sign", "--repo", walked, "--dry-run", "--json").stdout)
    assert (tried["signed"], tried["refused"]) == ({"fraud": [version]}, {})
    assert not (package / "signature.json").exists()
    done = json.loads(run("sign", "fraud", "--repo", walked, "--json").stdout)
    assert (done["signed"], done["key"]) == ({"fraud": [version]}, json.loads(signature)["key"])
    assert (package / "signature.json").read_bytes() == signature
    assert json.loads(run("sign", "--repo", walked, "--json").stdout)["signed"] == {"fraud": []}
