"""A trained project with several versions and a second model; tests read one copy of it, or change their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.training.train import train
from tests.integration.serving.core.doors import Connection, Doors, opened_doors
from tests.worlds.built_once import built_once
from tests.worlds.trained import MODEL, Sandbox, opened_copy

SECOND = "second"


@pytest.fixture(scope="session")
def trained(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 (champion), 2 and 3 of the model, and another that refuses what is missing; only ever copied."""
    return built_once(tmp_path_factory, "core", lambda repo: _train_versions(trained, repo))


def _train_versions(trained: Path, repo: Path) -> None:
    with opened_copy(trained, repo) as place:
        spec, store = place.project.applied.model(MODEL), place.project.store
        dataset = place.project.training_set(MODEL)
        specs = [replace(spec, rounds=7), replace(spec, rounds=3)]
        specs.append(replace(spec, name=SECOND, rounds=9, missing="refuse", log="required"))
        for one in specs:
            train(dataset, one, store, threads=1, now_us=place.now_us())
        store.aliases.move(SECOND, "champion", expect=None, to="000001", reason="first", now_us=1)


@pytest.fixture(scope="module")
def shared(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A copy that no test changes, but for its prediction log."""
    with opened_copy(trained, tmp_path_factory.mktemp("shared") / "p") as place:
        yield place


@pytest.fixture(scope="module")
def doors(shared: Sandbox) -> Iterator[Doors]:
    """Both lanes of a server of the shared project."""
    with opened_doors(shared) as doors:
        yield doors


@pytest.fixture(scope="module")
def links(doors: Doors) -> Iterator[list[Connection]]:
    """A connection through each lane that stays open as long as the server keeps it."""
    links = [Connection(doors.fast), Connection(doors.slow)]
    yield links
    for link in links:
        link.close()
