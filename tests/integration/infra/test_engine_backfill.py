"""Backfill by tasks: the states of one process, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from skewless.infra.engines.processes import ProcessExecutor
from skewless.infra.engines.results import FOLDER
from skewless.project import Project
from tests.worlds.engine_contract import check_killed_writes, open_windowed_project
from tests.worlds.tasks import TwiceExecutor

ROOT = Path(__file__).parents[3]


@pytest.fixture
def windowed_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with open_windowed_project(tmp_path) as project:
        yield project


def states_of(project: Project, generation: int) -> dict[bytes, bytes]:
    """Return the states of a generation by what follows its number in their names."""
    with redis.Redis.from_url(project.redis_url) as client:
        mark = b".%d:{" % generation
        names = [name for name in client.keys("*") if mark in name]
        return {name.partition(mark)[2]: client.get(name) for name in names}


def test_the_states_are_those_of_one_process(windowed_project: Project) -> None:
    project = windowed_project
    with Project(project.repo) as alone:
        alone.__dict__["clock"] = project.clock
        (first,) = alone.backfill()
    steps: list[tuple[str, int]] = []
    (second,) = project.backfill(on_rows=lambda view, done: steps.append((view, done)))
    assert (first.states, first.events) == (second.states, second.events) == (3, 600)
    assert steps[-1] == ("carrier_now", 3)
    assert first.generation is not None
    assert second.generation is not None
    expected = states_of(project, first.generation)
    assert len(expected) == 3
    assert states_of(project, second.generation) == expected
    assert project.parity().ok
    assert list(project.state.storage.list_objects(FOLDER)) == []


def test_two_attempts_at_once_leave_the_states_of_one(windowed_project: Project) -> None:
    project = windowed_project
    with Project(project.repo) as alone:
        alone.__dict__["clock"] = project.clock
        (first,) = alone.backfill()
    project.__dict__["executor"] = TwiceExecutor(2)
    steps: list[tuple[str, int]] = []
    for _ in range(3):
        (second,) = project.backfill(on_rows=lambda view, done: steps.append((view, done)))
        assert second.states == 3
        assert steps[-1] == ("carrier_now", 3)
        assert first.generation is not None
        assert second.generation is not None
        assert states_of(project, second.generation) == states_of(project, first.generation)
    assert project.parity().ok
    assert list(project.state.storage.list_objects(FOLDER)) == []


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_killed_workers_leave_the_states_and_rows_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    check_killed_writes(ProcessExecutor(2, attempts=100), tmp_path, kills=50)
