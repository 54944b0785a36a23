"""What is copied is on disk before it has its name: a power cut leaves no complete copy with empty files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.state.backup import restore
from skewless.operations.state.bundle import load_bundle
from skewless_export.export import export
from tests.worlds.trained import MODEL, Sandbox

COPIES: dict[str, Callable[[Sandbox, Path], object]] = {
    "backup": lambda place, out: place.project.backup(out),
    "bundle": lambda place, out: place.project.bundle(out),
    "archive": lambda place, out: place.project.bundle(out),
    "export": lambda place, out: export(place.project, MODEL, to="table", out=out),
}
LOADS: dict[str, Callable[[ProjectState, Path], object]] = {
    "backup": restore,
    "bundle": lambda state, folder: load_bundle(state, folder, 0),
}


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The inodes of all files and folders that were synced."""
    found, real = set[int](), os.fsync

    def sync(descriptor: int) -> None:
        found.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return found


def unsynced(path: Path, synced: set[int]) -> list[str]:
    """Return the files and folders of a copy that were not synced; the database syncs itself."""
    paths = [path.parent, path, *path.rglob("*")]
    return [str(each) for each in paths if each.stat().st_ino not in synced and "skewless.db" not in each.name]


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_on_disk_before_it_has_its_name(place: Sandbox, tmp_path: Path, synced: set[int], name: str) -> None:
    out = tmp_path / "copies" / (f"{name}.tar.gz" if name == "archive" else name)
    COPIES[name](place, out)
    assert out.exists()
    assert unsynced(out, synced) == []


@pytest.mark.parametrize("name", LOADS)
def test_what_is_loaded_from_a_copy_is_on_disk(place: Sandbox, tmp_path: Path, synced: set[int], name: str) -> None:
    COPIES[name](place, tmp_path / "copy")
    synced.clear()
    state = ProjectState(tmp_path / "state")
    LOADS[name](state, tmp_path / "copy")
    files = [path for path in state.folder.rglob("*") if path.is_file() and "skewless.db" not in path.name]
    assert any(path.name == "manifest.json" for path in files)
    assert [str(path) for path in files if path.stat().st_size and path.stat().st_ino not in synced] == []
