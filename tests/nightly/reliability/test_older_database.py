"""PostgreSQL fails over to an older state: what is true then, and after ``skewless recover`` (docs/database.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nightly.reliability.older_database import OlderDatabaseProject
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.command_line import done, run
from tests.worlds.waiting import eventually
from tools.postgres_server import PostgresServer


@pytest.fixture
def failing_over(tmp_path: Path, own_postgres: PostgresServer) -> Iterator[OlderDatabaseProject]:
    """A project with a champion, whose server and worker run."""
    with running(Node(program("valkey"), tmp_path / "node")) as node:
        project = OlderDatabaseProject(repo=tmp_path / "p", postgres=own_postgres, data=own_postgres._folder)
        project.set_up(own_postgres.start(), node.url)
        with project.running():
            yield project


@pytest.mark.soak
def test_a_failover_to_an_older_database_loses_no_row(failing_over: OlderDatabaseProject) -> None:
    project = failing_over
    repo, copy = project.repo, project.data.with_name("copy")
    project.live(2)
    project.until_applied()
    project.copy_database(copy)
    done("train", "--repo", repo)
    project.live(3)
    project.until_applied()
    project.merge()
    project.live(1)
    project.until_applied()
    lost = set(project.logged("predictions", "id"))
    project.fail_over(copy)

    # The worker refuses to continue, and the server answers.
    project.send_events()
    eventually(lambda: any("before the applied position" in line for line in project.worker_said("partition_lost")))
    project.predict()
    assert "is ahead of the log" in run("materialize", "--repo", repo, "--json").body["error"]["message"]
    assert not lost <= set(project.logged("predictions", "id"))

    planned = done("recover", "--dry-run", "--repo", repo)
    report = done("recover", "--repo", repo)
    assert (planned["logs"], planned["runs"]) == (report["logs"], report["runs"])
    assert (len(report["runs"]) > 0, report["versions"]) == (True, ["late 000002"])
    assert (report["conflicts"], report["missing"], report["ahead"]) == ([], [], [])
    done("promote", "late", "000002", "--repo", repo)
    project.publish()
    project.until_applied()

    assert project.count_wrong_values() == 0
    project.until_applied()
    assert Counter(project.logged("predictions", "id")) == Counter(project.predictions)
    assert Counter(project.logged("outcomes", "prediction_id")) == Counter(project.outcomes)
    events = Counter(name for name in project.logged("events", "landing") if name.startswith("e"))
    assert events == Counter(event.id for event in project.sent)
    replay = done("replay", "--repo", repo)
    assert (replay["compared"], replay["different"]) == (len(project.predictions), 0)
    assert done("parity", "--repo", repo)["ok"]
    assert done("recover", "--repo", repo)["logs"] == []
