"""A project on three hosts loses nothing and counts nothing twice, whatever happens to hosts and networks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skewless.contract.settings import load_settings
from skewless.infra.storage.project_state import ProjectState
from tests.hosts import checks
from tests.hosts.host import Host, connected_hosts
from tests.hosts.project import HostProject, repo_of
from tests.hosts.services import SERVER_PORT, start_postgres, start_proxy, start_redis
from tests.hosts.traffic import Traffic
from tests.worlds.waiting import until
from tests.worlds.windowed import SECOND

SKEWS_US = (0, 5 * SECOND, -5 * SECOND)
NAMES = ("one", "two", "three", "services")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Three hosts, and a fourth with the services."""
    with connected_hosts(tmp_path, NAMES) as hosts:
        yield hosts


@pytest.fixture
def spread(hosts: list[Host], tmp_path: Path) -> Iterator[HostProject]:
    """A trained project: servers, schedulers and stream workers run on two hosts."""
    *own, services = hosts
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        project = HostProject(
            folder=tmp_path,
            hosts=own,
            database_url=start_postgres(services, Path(folder)),
            redis_url=start_redis(services),
            skews_us=SKEWS_US,
        )
        project.set_up()
        for host in own[:2]:
            for verb in ("serve", "stream", "scheduler"):
                project.start(host, verb)
        yield project
        for host in hosts:
            host.close()


def traffic_of(project: HostProject, services: Host, seed: int) -> Traffic:
    proxy = start_proxy(services, project.hosts[:2])
    targets = {host.name.partition("-")[0]: f"http://{host.address}:{SERVER_PORT}" for host in project.hosts[:2]}
    return Traffic(events_to=proxy, targets={**targets, "proxy": proxy}, now_us=project.now_us, seed=seed)


def check(project: HostProject, traffic: Traffic, tell: Callable[[str], None]) -> checks.Counts:
    """Let the workers finish; return all counts, and check those that must be zero."""
    until(project.is_drained)
    state = ProjectState.of(repo_of(project.hosts[0]), load_settings(repo_of(project.hosts[0])))
    urls = [url for name, url in traffic.targets.items() if name != "proxy"]
    logs = [host.folder / "scheduler.log" for host in project.hosts[:2]]
    counts = {
        **checks.count_events(state, traffic.accepted),
        **checks.count_wrong_values(urls, traffic.accepted),
        **checks.count_runs(state, logs),
        **checks.count_predictions(state, traffic),
        **checks.count_replayed(project.ask),
        "event requests repeated": traffic.repeats,
        **{f"failed at {name}": len(traffic.failures(name)) for name in traffic.targets},
    }
    tell("".join(f"\n  {n:8} {name}" for name, n in counts.items()))
    zero = ("lost", "twice", "nowhere", "wrong", "not logged", "different")
    assert {name: n for name, n in counts.items() if n and name.endswith(zero)} == {}
    return counts


def test_three_hosts_without_faults(hosts: list[Host], spread: HostProject, tell: Callable[[str], None]) -> None:
    traffic = traffic_of(spread, hosts[3], seed=0)
    with traffic.running():
        time.sleep(15)
    counts = check(spread, traffic, tell)
    assert {name: n for name, n in counts.items() if n and name.startswith("failed")} == {}
