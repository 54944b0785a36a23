"""Backfill by tasks: the states of one process, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from skewless.infra.reads.engines.results import FOLDER
from skewless.project import Project
from tests.worlds.engine_contract import check_killed_writes, open_windowed_project
from tests.worlds.workers import WORKERS, TwiceExecutor


@pytest.fixture(scope="module")
def windowed_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose large work runs on workers."""
    with open_windowed_project(tmp_path_factory.mktemp("windowed")) as project:
        project.__dict__["executor"] = WORKERS
        yield project


@pytest.fixture(scope="module")
def built_alone(windowed_project: Project) -> dict[bytes, bytes]:
    """The states that one process builds."""
    with Project(windowed_project.repo) as alone:
        alone.__dict__["clock"] = windowed_project.clock
        (built,) = alone.backfill()
    assert (built.states, built.events) == (3, 600)
    states = states_of(windowed_project, built.generation)
    assert len(states) == 3
    return states


def states_of(project: Project, generation: int | None) -> dict[bytes, bytes]:
    """Return the states of a generation by what follows its number in their names."""
    assert generation is not None
    with redis.Redis.from_url(project.redis_url) as client:
        mark = b".%d:{" % generation
        names = [name for name in client.keys("*") if mark in name]
        return {name.partition(mark)[2]: client.get(name) for name in names}


@pytest.mark.parametrize("attempts", [1, 2])
def test_tasks_and_two_attempts_of_each_at_once_leave_the_states_of_one_process(
    windowed_project: Project, built_alone: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    project = windowed_project
    if attempts == 2:
        monkeypatch.setitem(project.__dict__, "executor", TwiceExecutor(WORKERS))
    steps: list[tuple[str, int]] = []
    for _ in range(attempts):  # two attempts may leave a result each
        (built,) = project.backfill(on_rows=lambda view, done: steps.append((view, done)))
        assert (built.states, built.events) == (3, 600)
        assert steps[-1] == ("carrier_now", 3)
        assert states_of(project, built.generation) == built_alone
    assert project.parity().ok
    assert list(project.state.storage.list_objects(FOLDER)) == []


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_killed_workers_leave_the_states_and_rows_of_the_log(tmp_path: Path) -> None:
    check_killed_writes(WORKERS, tmp_path, kills=50)
