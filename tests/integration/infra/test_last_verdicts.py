"""Checks of different views, at the same time, all stay stored; what another release wrote counts as absent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.infra.models.verdicts.last_verdicts import Freshness, LastParity, read_last, save_last
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from tests.servers.postgres import address_of


@pytest.fixture
def verdict_state(tmp_path: Path, project_database: Database) -> ProjectState:
    return ProjectState(tmp_path, address_of(project_database))


def parity(view: str, mismatches: int) -> LastParity:
    return LastParity(view=view, hash="h", at_us=1, compared=9, mismatches=mismatches, by_cause={"value": mismatches})


def test_checks_of_different_views_are_all_stored(verdict_state: ProjectState) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: save_last(verdict_state, LastParity, [parity(f"v{i % 20}", i)]), range(40)))
        ages = [Freshness(view=f"v{i}", hash="h", at_us=5, limit_us=0, newest_us=None) for i in range(20)]
        list(pool.map(lambda age: save_last(verdict_state, Freshness, [age]), ages))
    verdicts = read_last(verdict_state, LastParity)
    assert sorted(verdicts) == sorted(f"v{i}" for i in range(20))
    assert all(verdict == parity(view, verdict.mismatches) for view, verdict in verdicts.items())
    save_last(verdict_state, LastParity, [parity("v3", 99)])
    verdicts = read_last(verdict_state, LastParity)
    assert (verdicts["v3"].mismatches, len(verdicts)) == (99, 20)
    assert read_last(verdict_state, Freshness) == {age.view: age for age in ages}


@pytest.mark.parametrize("body", [{}, {"views": [{"view": "v"}]}, {"views": 3}, []])
def test_a_verdict_of_another_release_counts_as_absent(verdict_state: ProjectState, body: object) -> None:
    Documents(verdict_state.database, "parity_verdicts").put("project", body)
    assert read_last(verdict_state, LastParity) == {}
    save_last(verdict_state, LastParity, [parity("v", 2)])
    assert read_last(verdict_state, LastParity) == {"v": parity("v", 2)}
