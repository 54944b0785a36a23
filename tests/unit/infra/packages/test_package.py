"""A package comes back as it was written, or the altered file is named."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skewless.contract.errors import PackageError, StoreError
from skewless.infra.models.packages.package import PackageContents, encode_manifest, open_package
from skewless.infra.models.packages.writer import write_package
from skewless.infra.platform.storage.package_folder import PackageFolder
from tests.worlds.packages import store_at

FILES = {
    "about.json",
    "bounds.json",
    "curves.json",
    "extra/transforms.py",
    "fingerprint.json",
    "manifest.json",
    "metrics.json",
    "model.txt",
    "plan.json",
    "profile.json",
    "reference_margins.npy",
    "reference_rows.npy",
    "reference_scores.npy",
    "signature.json",
    "spec.json",
}


def tree(root: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def without_signature(folder: Path) -> dict[str, bytes]:
    """Make a package one from before packages were signed; return its files."""
    (folder / "signature.json").unlink()
    return tree(folder)


def test_everything_comes_back_bit_for_bit(tmp_path: Path, contents: PackageContents) -> None:
    written = write_package(store_at(tmp_path), "late", contents)
    package = open_package(store_at(tmp_path), "late", "000001")
    assert package.digest == written.digest
    assert (package.name, package.version, package.path) == ("late", "000001", tmp_path / "late" / "000001")
    assert package.model_file.read_bytes() == contents.model
    for part in ("spec", "plan", "profile", "metrics", "fingerprint", "about", "bounds", "curves", "extra"):
        assert getattr(package, part) == getattr(contents, part)
    for part in ("rows", "margins", "scores"):
        found, expected = getattr(package.reference, part), getattr(contents.reference, part)
        assert found.tobytes() == expected.tobytes()
        assert found.shape == expected.shape


def test_scores_of_several_outputs_come_back(tmp_path: Path, contents: PackageContents) -> None:
    many = np.arange(6.0).reshape(2, 3)
    written = write_package(
        store_at(tmp_path),
        "late",
        replace(contents, reference=replace(contents.reference, margins=many, scores=many / 15)),
    )
    found = open_package(store_at(tmp_path), "late", written.version).reference
    assert (found.n_outputs, found.margins.tolist(), found.scores.tolist()) == (3, many.tolist(), (many / 15).tolist())


def test_the_folder_holds_these_files_and_no_pickle(tmp_path: Path, contents: PackageContents) -> None:
    package = write_package(store_at(tmp_path), "late", contents)
    assert set(tree(package.path)) == FILES
    for name in ("rows", "margins", "scores"):
        assert np.load(package.path / f"reference_{name}.npy", allow_pickle=False).dtype == np.float64


def test_equal_contents_give_equal_files(tmp_path: Path, contents: PackageContents) -> None:
    one = write_package(store_at(tmp_path / "a"), "late", contents)
    two = write_package(replace(store_at(tmp_path / "a"), packages=PackageFolder(tmp_path / "b")), "late", contents)
    assert tree(one.path) == tree(two.path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_one_flipped_bit_in_any_byte_of_a_file_is_named(tmp_path: Path, contents: PackageContents, name: str) -> None:
    path = write_package(store_at(tmp_path), "late", contents).path / name
    data = path.read_bytes()
    for at in sorted({0, len(data) // 3, len(data) // 2, len(data) - 1}):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(PackageError) as refusal:
            open_package(store_at(tmp_path), "late", "000001")
        # what a key that nobody trusts has signed is as good as any other text
        assert name in refusal.value.sentence() or name in {"manifest.json", "signature.json"}
    path.write_bytes(data)
    assert open_package(store_at(tmp_path), "late", "000001").version == "000001"


def test_no_part_of_the_manifest_may_change(tmp_path: Path, contents: PackageContents) -> None:
    path = write_package(store_at(tmp_path), "late", contents).path / "manifest.json"
    data = path.read_bytes()
    for at in range(0, len(data), 5):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(PackageError):
            open_package(store_at(tmp_path), "late", "000001")


@pytest.mark.parametrize("name", sorted(FILES - {"signature.json"}))
def test_a_deleted_file_is_named(tmp_path: Path, contents: PackageContents, name: str) -> None:
    (write_package(store_at(tmp_path), "late", contents).path / name).unlink()
    with pytest.raises(PackageError, match=f"lacks a file.*{name}"):
        open_package(store_at(tmp_path), "late", "000001")


@pytest.mark.parametrize("name", ["new.txt", ".hidden", "extra/other.py", "deep/er/file"])
def test_an_added_file_is_named(tmp_path: Path, contents: PackageContents, name: str) -> None:
    path = write_package(store_at(tmp_path), "late", contents).path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    with pytest.raises(PackageError, match=f"unexpected file.*{name}"):
        open_package(store_at(tmp_path), "late", "000001")


def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path, contents: PackageContents) -> None:
    path = write_package(store_at(tmp_path), "late", contents).path / "model.txt"
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageError, match=r"model\.txt"):
        open_package(store_at(tmp_path), "late", "000001")


def test_a_folder_under_another_name_is_refused(tmp_path: Path, contents: PackageContents) -> None:
    package = write_package(store_at(tmp_path), "late", contents)
    shutil.copytree(package.path, package.path.with_name("000002"))
    shutil.copytree(tmp_path / "late", tmp_path / "early")
    for name, version in (("late", "000002"), ("early", "000001")):
        with pytest.raises(PackageError, match=r"manifest\.json"):
            open_package(store_at(tmp_path), name, version)


def test_a_manifest_that_leads_out_of_the_folder_is_refused(tmp_path: Path, contents: PackageContents) -> None:
    path = write_package(store_at(tmp_path), "late", contents).path / "manifest.json"
    (tmp_path / "secret").write_text("x")
    path.write_bytes(encode_manifest("late", "000001", "model.txt", {"../../secret": b"x"}))
    path.with_name("signature.json").write_bytes(store_at(tmp_path).signer.sign(path.read_bytes()))
    with pytest.raises(PackageError, match="secret"):
        open_package(store_at(tmp_path), "late", "000001")


def test_versions_increase_and_sort(tmp_path: Path, contents: PackageContents) -> None:
    assert PackageFolder(tmp_path).list_versions("late") == []
    assert [write_package(store_at(tmp_path), "late", contents).version for _ in range(3)] == [
        "000001",
        "000002",
        "000003",
    ]
    (tmp_path / "late" / "000003").rename(tmp_path / "late" / "1000000")
    assert PackageFolder(tmp_path).list_versions("late") == ["000001", "000002", "1000000"]
    assert write_package(store_at(tmp_path), "late", contents).version == "1000001"


@pytest.mark.parametrize("version", ["000002", "1", "..", "", "aliases"])
def test_a_version_that_does_not_exist_is_named(tmp_path: Path, contents: PackageContents, version: str) -> None:
    write_package(store_at(tmp_path), "late", contents)
    with pytest.raises(PackageError, match="no such version") as refusal:
        open_package(store_at(tmp_path), "late", version)
    assert "000001" in refusal.value.fix


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "a b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, contents: PackageContents, name: str) -> None:
    with pytest.raises(PackageError, match="has an invalid name"):
        write_package(store_at(tmp_path), name, contents)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_packaged_is_refused_before_anything_is_written(
    tmp_path: Path, contents: PackageContents
) -> None:
    wrong = {
        "plain JSON": replace(contents, metrics={"auc": float("nan")}),
        "plain file name": replace(contents, extra={"../up.py": "x"}),
        "name of another file": replace(contents, model_name="spec.json"),
    }
    for problem, altered in wrong.items():
        with pytest.raises(PackageError, match=problem):
            write_package(store_at(tmp_path), "late", altered)
    assert list(tmp_path.iterdir()) == []


def test_the_leftover_of_a_killed_writer_is_ignored_and_swept(tmp_path: Path, contents: PackageContents) -> None:
    write_package(store_at(tmp_path), "late", contents)
    leftover = tmp_path / "late" / ".new-killed"
    leftover.mkdir()
    (leftover / "model.txt").write_text("half")
    assert PackageFolder(tmp_path).list_versions("late") == ["000001"]
    assert open_package(store_at(tmp_path), "late", "000001").version == "000001"
    assert write_package(store_at(tmp_path), "late", contents).version == "000002"
    assert not leftover.exists()


def test_a_full_disk_leaves_no_version(
    tmp_path: Path, contents: PackageContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(store_at(tmp_path), "late", contents)
    before = tree(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_package(store_at(tmp_path), "late", contents)
    assert tree(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "late").iterdir()) == [".new.lock", "000001"]


def test_a_manifest_is_plain_json_with_a_hash_per_file(tmp_path: Path, contents: PackageContents) -> None:
    package = write_package(store_at(tmp_path), "late", contents)
    manifest = json.loads((package.path / "manifest.json").read_text())
    assert set(manifest["files"]) == FILES - {"manifest.json", "signature.json"}
    assert all(len(digest) == 64 for digest in manifest["files"].values())
