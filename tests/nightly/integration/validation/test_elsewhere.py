"""A whole project on a cluster, and one whose sentinels change the master: the same scores as on one server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skewless.operations.health.checkup.machine import check_url
from tests.servers.cluster import cluster
from tests.servers.programs import program
from tests.servers.sentinels import sentinel_set
from tests.worlds.trained import Sandbox, ask, copy_project, later_rows, opened
from tests.worlds.waiting import until


def test_a_project_on_a_cluster(place: Sandbox, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = place.predict(ask(60))
    with cluster(program("valkey"), tmp_path / "cluster") as nodes:
        monkeypatch.setenv("SKEWLESS_REDIS_URL", nodes.url)
        with opened(copy_project(trained, tmp_path / "q")) as other:
            assert [report.written for report in other.project.materialize(check=False)] == [300, 40]
            other.wait(60)
            assert all(finding.verdict == "ok" for finding in check_url(nodes.url, 1_000.0))
            np.testing.assert_array_equal(other.predict(ask(60)).matrix, expected.matrix)
            assert not other.project.replay().findings.predictions


@pytest.mark.soak
def test_a_project_through_a_failover(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sentinel_set(program("valkey"), tmp_path / "set") as nodes:
        monkeypatch.setenv("SKEWLESS_REDIS_URL", nodes.url)
        with opened(copy_project(trained, tmp_path / "q")) as other:
            other.project.materialize(check=False)
            other.wait(60)
            before = other.predict(ask(60))
            nodes.replicate()
            nodes.fail_over()
            until(lambda: not other.predict(ask(60)).degraded)
            np.testing.assert_array_equal(other.predict(ask(60)).matrix, before.matrix)
            other.publish(later_rows(other, 20))
            until(lambda: _accepted(other) == 0)
            other.wait(60)
            assert not other.predict(ask(60)).degraded
            assert not other.project.replay().findings.predictions


def _accepted(place: Sandbox) -> int:
    return sum(report.accepted for report in place.project.materialize(check=False))
