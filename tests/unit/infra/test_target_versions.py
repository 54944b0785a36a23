"""What somebody wants served: kept in a file that many may write, and that may be damaged."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from skewless.contract.errors import PackageError
from skewless.infra.plans.target_versions import FILE, TargetVersions, TargetVersionsFile
from skewless.infra.storage.project_state import ProjectState
from tests.worlds.waiting import PATIENCE_S

WRITES = 10


def test_nobody_wanted_anything(tmp_path: Path) -> None:
    assert TargetVersionsFile(ProjectState(tmp_path)).read() == TargetVersions()
    assert list(tmp_path.iterdir()) == []


def test_wishes_add_up() -> None:
    wanted = TargetVersions().with_loaded("a", "1").with_loaded("a", "2").with_loaded("b", None)
    assert wanted.versions("a") == {"1", "2"}
    assert (wanted.versions("b"), wanted.versions("c")) == (frozenset(), frozenset())
    assert wanted.unloaded == frozenset()


def test_to_unload_takes_back_what_was_pinned() -> None:
    wanted = TargetVersions().with_loaded("a", "1").with_loaded("b", "7").with_unloaded("a")
    assert wanted == TargetVersions(unloaded=frozenset({"a"}), pinned={"b": frozenset({"7"})})
    assert wanted.with_loaded("a", None) == TargetVersions(pinned={"b": frozenset({"7"})})
    assert wanted.with_loaded("a", "2").versions("a") == {"2"}


def test_wishes_outlive_whoever_had_them(tmp_path: Path) -> None:
    file = TargetVersionsFile(ProjectState(tmp_path))
    file.load("größe", "000002")
    file.unload("b")
    file.load("größe", "000001")
    file.load("größe", None)
    expected = TargetVersions(unloaded=frozenset({"b"}), pinned={"größe": frozenset({"000001", "000002"})})
    assert TargetVersionsFile(ProjectState(tmp_path)).read() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "7",
        "[]",
        "{}",
        '{"pinned": {}}',
        '{"unloaded": []}',
        '{"unloaded": 7, "pinned": {}}',
        '{"unloaded": [], "pinned": []}',
        '{"unloaded": [], "pinned": {"a": 7}}',
        "\udcff",
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILE
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = path.read_bytes()
    file = TargetVersionsFile(ProjectState(tmp_path))
    with pytest.raises(PackageError, match=FILE):
        file.read()
    with pytest.raises(PackageError, match=FILE):
        file.load("a", None)
    assert path.read_bytes() == before


def _write(folder: Path, model: str) -> None:
    file = TargetVersionsFile(ProjectState(folder))
    for version in range(WRITES):
        file.load(model, str(version))


def test_writers_in_several_processes_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    _write(tmp_path, "c")
    for writer in writers:
        writer.join(PATIENCE_S)
        assert writer.exitcode == 0
    wanted = TargetVersionsFile(ProjectState(tmp_path)).read()
    assert wanted.pinned == dict.fromkeys("abc", frozenset(map(str, range(WRITES))))
