"""The target versions, in a document that many may write, and that may be corrupt."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from skewless.contract.errors import PackageError
from skewless.infra.definitions.plans.needed_views import StoredTargetVersions, TargetVersions
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from tests.servers.postgres import ON_SQLITE, address_of
from tests.worlds.waiting import PATIENCE_S

WRITES = 10


def state_of(database: Database) -> ProjectState:
    return ProjectState(Path(), address_of(database))


def test_nobody_wanted_anything(tmp_path: Path) -> None:
    assert StoredTargetVersions(ProjectState(tmp_path)).read() == TargetVersions()
    assert list(tmp_path.iterdir()) == []


def test_wishes_add_up(tmp_path: Path) -> None:
    stored = StoredTargetVersions(ProjectState(tmp_path))
    stored.load("a", "1")
    stored.load("a", "2")
    wanted = stored.load("b", None)
    assert wanted.versions("a") == {"1", "2"}
    assert (wanted.versions("b"), wanted.versions("c")) == (frozenset(), frozenset())
    assert wanted.unloaded == frozenset()


def test_to_unload_takes_back_what_was_pinned(tmp_path: Path) -> None:
    stored = StoredTargetVersions(ProjectState(tmp_path))
    stored.load("a", "1")
    stored.load("b", "7")
    assert stored.unload("a") == TargetVersions(unloaded=frozenset({"a"}), pinned={"b": frozenset({"7"})})
    assert stored.load("a", None) == TargetVersions(pinned={"b": frozenset({"7"})})
    assert stored.load("a", "2").versions("a") == {"2"}


def test_wishes_outlive_whoever_had_them(project_database: Database) -> None:
    stored = StoredTargetVersions(state_of(project_database))
    assert stored.revision() == 0
    stored.load("größe", "000002")
    stored.unload("b")
    stored.load("größe", "000001")
    stored.load("größe", None)
    expected = TargetVersions(unloaded=frozenset({"b"}), pinned={"größe": frozenset({"000001", "000002"})})
    assert StoredTargetVersions(state_of(project_database)).read() == expected
    assert stored.revision() == 4


@pytest.mark.parametrize(
    "body",
    [
        7,
        [],
        {},
        {"pinned": {}},
        {"unloaded": []},
        {"unloaded": 7, "pinned": {}},
        {"unloaded": [], "pinned": []},
        {"unloaded": [], "pinned": {"a": 7}},
    ],
)
def test_damaged_versions_are_named_and_left_alone(tmp_path: Path, body: object) -> None:
    state = ProjectState(tmp_path)
    documents = Documents(state.database, "target_versions")
    documents.put("project", body)
    stored = StoredTargetVersions(state)
    with pytest.raises(PackageError, match="target versions"):
        stored.read()
    with pytest.raises(PackageError, match="target versions"):
        stored.load("a", None)
    assert (documents.get("project"), documents.revision("project")) == (body, 1)


def _write(url: str, model: str) -> None:
    stored = StoredTargetVersions(ProjectState(Path(), url))
    for version in range(WRITES):
        stored.load(model, str(version))


@ON_SQLITE
def test_writers_in_several_processes_lose_nothing(project_database: Database) -> None:
    context, url = multiprocessing.get_context("spawn"), address_of(project_database)
    writers = [context.Process(target=_write, args=(url, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    _write(url, "c")
    for writer in writers:
        writer.join(PATIENCE_S)
        assert writer.exitcode == 0
    wanted = StoredTargetVersions(state_of(project_database)).read()
    assert wanted.pinned == dict.fromkeys("abc", frozenset(map(str, range(WRITES))))
