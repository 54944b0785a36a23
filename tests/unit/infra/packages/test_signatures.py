"""What a server loads was signed by a key that it trusts, for the model and the version that it asks for."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skewless.contract.errors import DefinitionError, PackageError, PlaceError
from skewless.contract.settings import Settings
from skewless.infra.models.packages.package import (
    PackageContents,
    encode_manifest,
    open_package,
    read_pinned_plan,
    read_spec,
)
from skewless.infra.models.packages.served_model import load_model
from skewless.infra.models.packages.signing import Signer, TrustPolicy
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.packages.writer import sign_package, write_package
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.packages import store_at

# All that opens a package, of which each server, verb and job uses one.
READERS: dict[str, Callable[[PackageStore, str, str], object]] = {
    "package": open_package,
    "served": load_model,
    "spec": read_spec,
    "plan": read_pinned_plan,
}


def refusals(store: PackageStore, name: str, version: str) -> dict[str, str]:
    """Return what each reader says."""
    found = {}
    for reader, read in READERS.items():
        with pytest.raises(PackageError) as refusal:
            read(store, name, version)
        found[reader] = str(refusal.value)
    return found


def folder_of(root: Path, name: str = "late", version: str = "000001") -> Path:
    return root / name / version


def swap(root: Path, source: tuple[str, str], target: tuple[str, str]) -> None:
    """Put one package in the place of another."""
    shutil.rmtree(folder_of(root, *target), ignore_errors=True)
    shutil.copytree(folder_of(root, *source), folder_of(root, *target))


def resign(store: PackageStore, folder: Path, name: str, version: str) -> None:
    """Sign a folder as it is, as who holds this store's key can."""
    store.check_signer()
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {"manifest.json", "signature.json"}
    }
    manifest = encode_manifest(name, version, "model.txt", files)
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "signature.json").write_bytes(store.signer.sign(manifest))


def test_altered_code_is_refused_though_the_manifest_fits(tmp_path: Path, contents: PackageContents) -> None:
    """Who can write the folder can write a manifest that fits; this was loaded before packages were signed."""
    store = store_at(tmp_path)
    folder = write_package(store, "late", contents).path
    signature = (folder / "signature.json").read_bytes()
    (folder / "extra/transforms.py").write_text("import os; os.system('true')")
    resign(store_at(tmp_path / "foreign"), folder, "late", "000001")
    for why in refusals(store, "late", "000001").values():
        assert "is signed by a key that is not trusted" in why
    (folder / "signature.json").write_bytes(signature)
    for why in refusals(store, "late", "000001").values():
        assert "has a signature of another manifest" in why
    (folder / "signature.json").unlink()
    for why in refusals(store, "late", "000001").values():
        assert "is not signed" in why
        assert "skewless sign" in why


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (("late", "000002"), ("late", "000003")),
        (("late", "000001"), ("late", "000002")),
        (("late", "000001"), ("early", "000001")),
        (("early", "000001"), ("late", "000003")),
        (("late", "000003"), ("late", "000004")),
        (("late", "000001"), ("new", "000001")),
    ],
)
def test_a_package_is_loaded_in_its_own_place_alone(
    tmp_path: Path, contents: PackageContents, source: tuple[str, str], target: tuple[str, str]
) -> None:
    store = store_at(tmp_path)
    for name in ("late", "late", "late", "early"):
        write_package(store, name, contents)
    swap(tmp_path, source, target)
    for reader, why in refusals(store, *target).items():
        assert "has an altered file" in why, reader
        assert "manifest.json" in why, reader
    assert open_package(store, *source).version == source[1]


def test_a_signature_of_another_version_is_refused(tmp_path: Path, contents: PackageContents) -> None:
    store = store_at(tmp_path)
    one, two = write_package(store, "late", contents).path, write_package(store, "late", contents).path
    shutil.copy(one / "signature.json", two / "signature.json")
    for why in refusals(store, "late", "000002").values():
        assert "has a signature of another manifest" in why


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_other_signature_is_taken(tmp_path: Path, contents: PackageContents, data: st.DataObject) -> None:
    store = store_at(tmp_path)
    folder = folder_of(tmp_path)
    if not folder.exists():
        write_package(store, "late", contents)
        shutil.copy(folder / "signature.json", tmp_path / "kept")
    good = json.loads((tmp_path / "kept").read_bytes())
    texts = st.one_of(st.text(max_size=90), st.none(), st.integers(), st.lists(st.integers(), max_size=3))
    body = {name: data.draw(st.one_of(st.just(value), texts)) for name, value in good.items()}
    raw = data.draw(st.one_of(st.just(json.dumps(body).encode()), st.binary(max_size=99), st.just(b"[" * 4_000)))
    (folder / "signature.json").write_bytes(raw)
    if raw == json.dumps(good).encode():
        assert open_package(store, "late", "000001").version == "000001"
        return
    with pytest.raises(PackageError, match=r"signature|signed"):
        open_package(store, "late", "000001")


def test_a_package_without_a_signature_loads_once_it_is_signed(tmp_path: Path, contents: PackageContents) -> None:
    store = store_at(tmp_path)
    (write_package(store, "late", contents).path / "signature.json").unlink()
    with pytest.raises(PackageError, match="is not signed"):
        open_package(store, "late", "000001")
    sign_package(store, "late", "000001", dry=True)
    with pytest.raises(PackageError, match="is not signed"):
        open_package(store, "late", "000001")
    sign_package(store, "late", "000001")
    assert open_package(store, "late", "000001").version == "000001"


@pytest.mark.parametrize("step", ["replace", "link", "unlink"])
def test_a_package_whose_signing_was_killed_has_no_other_file(
    tmp_path: Path, contents: PackageContents, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (write_package(store_at(tmp_path), "late", contents).path / "signature.json").unlink()
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        # What a killed process does not clean up.
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, stop)
        patch.setattr(os, step, stop)
        sign_package(store_at(tmp_path), "late", "000001")
    assert open_package(store_at(tmp_path, unsigned=True), "late", "000001").version == "000001"
    sign_package(store_at(tmp_path), "late", "000001")
    assert open_package(store_at(tmp_path), "late", "000001").version == "000001"
    assert {path.name for path in folder_of(tmp_path).parent.iterdir() if path.is_dir()} == {"000001"}


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_signing_lets_no_wrong_signature_pass(tmp_path: Path, contents: PackageContents) -> None:
    folder = write_package(store_at(tmp_path), "late", contents).path
    resign(store_at(tmp_path / "foreign"), folder, "late", "000001")
    with pytest.raises(PackageError, match="not trusted"):
        open_package(store_at(tmp_path), "late", "000001")
    with pytest.raises(PackageError, match="not trusted"):
        sign_package(store_at(tmp_path), "late", "000001")


def test_an_altered_package_is_not_signed(tmp_path: Path, contents: PackageContents) -> None:
    folder = write_package(store_at(tmp_path), "late", contents).path
    (folder / "signature.json").unlink()
    (folder / "model.txt").write_bytes(b"another")
    with pytest.raises(PackageError, match=r"altered file.*model\.txt"):
        sign_package(store_at(tmp_path), "late", "000001")
    assert not (folder / "signature.json").exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_key_is_for_its_owner_alone_and_stays(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = PackageStore.of(ProjectState(tmp_path / "state"), Settings())
        first = store.check_signer()
    finally:
        os.umask(before)
    assert store.check_signer() == first == PackageStore.of(ProjectState(tmp_path / "state"), Settings()).check_signer()
    assert stat.S_IMODE((tmp_path / "state/signing_key.pem").stat().st_mode) == 0o600
    assert store.trust.trusted_keys() == {first}


def test_given_keys_count_instead_of_those_in_the_state_folder(tmp_path: Path, contents: PackageContents) -> None:
    """Then who can write the state folder cannot make itself trusted."""
    state = tmp_path / "state"
    own = PackageStore.of(ProjectState(state), Settings())
    write_package(own, "late", contents)
    outside = store_at(tmp_path / "outside").check_signer()
    strict = PackageStore.of(ProjectState(state), Settings(trusted_keys=(outside,)))
    with pytest.raises(PackageError, match="not trusted"):
        open_package(strict, "late", "000001")
    with pytest.raises(DefinitionError, match="signing_key"):
        write_package(strict, "late", contents)
    both = PackageStore.of(ProjectState(state), Settings(trusted_keys=(outside, own.check_signer())))
    assert open_package(both, "late", "000001").version == "000001"
    key = tmp_path / "outside.keys/key.pem"
    named = PackageStore.of(ProjectState(state), Settings(trusted_keys=(outside,), signing_key=str(key)))
    assert open_package(strict, "late", write_package(named, "late", contents).version).version == "000002"


def test_a_key_that_others_made_signs(tmp_path: Path, contents: PackageContents) -> None:
    key = tmp_path / "key.pem"
    made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key.write_bytes(made)
    store = PackageStore.of(ProjectState(tmp_path / "state"), Settings(signing_key=str(key)))
    assert write_package(store, "late", contents).version == "000001"


@pytest.mark.parametrize("text", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_another_file_is_no_key(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "key.pem").write_bytes(text)
    signer = Signer(path=tmp_path / "key.pem", own=False, state=None)
    with pytest.raises(PlaceError, match="signing key"):
        signer.prepare()
    with pytest.raises(PlaceError, match="cannot be read"):
        replace(signer, path=tmp_path / "gone.pem").prepare()


@given(st.text(max_size=60))
def test_another_text_is_no_public_key(text: str) -> None:
    with pytest.raises(DefinitionError, match="trusted_keys"):
        TrustPolicy(state=ProjectState(Path("nowhere")), given=frozenset({f"ed25519:{text}"}))
