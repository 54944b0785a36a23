"""A project on three hosts loses nothing and counts nothing twice, whatever happens to hosts and networks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from skewless.contract.settings import load_settings
from skewless.infra.storage.project_state import ProjectState
from tests.hosts import checks
from tests.hosts.faults import Fault, FaultInjector, PastFault, random_faults, unexplained
from tests.hosts.host import Host, connected_hosts
from tests.hosts.project import HostProject, repo_of
from tests.hosts.publisher import FactPublisher
from tests.hosts.services import SERVER_PORT, start_postgres, start_proxy, start_redis
from tests.hosts.traffic import Traffic
from tests.worlds.waiting import until
from tests.worlds.windowed import SECOND

SKEWS_US = (0, 5 * SECOND, -5 * SECOND)
SERVICES = ("database", "store", "proxy")
_FEW = (
    Fault(kind="kill", host=0, target="stream", seconds=1.0),
    Fault(kind="cut off", host=1, target="database", seconds=4.0),
    Fault(kind="pause", host=0, target="scheduler", seconds=4.0),
    Fault(kind="cut off", host=0, target="everybody", seconds=3.0),
    Fault(kind="kill", host=1, target="serve", seconds=0.0),
)


@dataclass(frozen=True, kw_only=True)
class SpreadProject:
    """A trained project whose programs run on two hosts, behind a load balancer."""

    project: HostProject
    services: dict[str, Host]
    proxy: str

    def traffic(self, seed: int) -> Traffic:
        """Return clients of the load balancer, and of each server."""
        servers = {f"host {i + 1}": f"http://{host.address}:{SERVER_PORT}" for i, host in enumerate(self.serving)}
        return Traffic(
            events_to=self.proxy, targets={**servers, "proxy": self.proxy}, now_us=self.project.now_us, seed=seed
        )

    @property
    def serving(self) -> Sequence[Host]:
        """The hosts with a server, a stream worker and a scheduler."""
        return self.project.hosts[:2]


@pytest.fixture
def spread(tmp_path: Path) -> Iterator[SpreadProject]:
    """Three hosts, and one for each service."""
    with (
        connected_hosts(tmp_path, ("one", "two", "three", *SERVICES)) as hosts,
        tempfile.TemporaryDirectory(prefix="pg-") as folder,
    ):
        Path(folder).chmod(0o755)  # PostgreSQL's user must be able to pass through
        services = dict(zip(SERVICES, hosts[3:], strict=True))
        project = HostProject(
            folder=tmp_path,
            hosts=hosts[:3],
            database_url=start_postgres(services["database"], Path(folder)),
            redis_url=start_redis(services["store"]),
            skews_us=SKEWS_US,
        )
        project.set_up()
        proxy = start_proxy(services["proxy"], hosts[:2])
        spread = SpreadProject(project=project, services=services, proxy=proxy)
        for host in spread.serving:
            for verb in ("serve", "stream", "scheduler"):
                project.start(host, verb)
        yield spread
        for host in hosts:
            host.close()


def live_through(spread: SpreadProject, faults: Iterator[Fault], seed: int, tell: Callable[[str], None]) -> None:
    """Inject faults while clients and the publisher work; then count, and check all promises."""
    traffic, publisher = spread.traffic(seed), FactPublisher(spread.project, spread.project.hosts[2])
    injector = FaultInjector(spread.project, spread.services)
    past: list[PastFault] = []
    with traffic.running(), publisher.running():
        for fault in faults:
            tell(f"seed {seed}: {fault}")
            past.append(injector.inject(fault))
    counts = count(spread, traffic, publisher, past)
    tell(f"seed {seed}, {len(past)} faults" + "".join(f"\n  {n:8} {name}" for name, n in counts.items()))
    zero = ("lost", "twice", "nowhere", "wrong", "not logged", "different", "without a fault")
    assert {name: n for name, n in counts.items() if n and name.endswith(zero)} == {}


def count(
    spread: SpreadProject, traffic: Traffic, publisher: FactPublisher, past: Sequence[PastFault]
) -> checks.Counts:
    """Let the workers finish; return all counts."""
    project = spread.project
    until(project.is_drained)
    for host in spread.serving:
        assert host.programs["scheduler"].stop() == 0
    repo = repo_of(project.hosts[0])
    state = ProjectState.of(repo, load_settings(repo))
    servers = {name: url for name, url in traffic.targets.items() if name != "proxy"}
    counts = {
        **checks.count_events(state, traffic.accepted),
        **checks.count_wrong_values(servers.values(), traffic.accepted, publisher.expected_fleets()),
        **checks.count_runs(state, [host.folder / "scheduler.log" for host in spread.serving]),
        **checks.count_predictions(state, traffic),
        **checks.count_replayed(project.ask),
        "materializations done": publisher.codes.count(0),
        "materializations failed": len(publisher.codes) - publisher.codes.count(0),
        "event requests repeated": traffic.repeats,
        "failed at the proxy": len(traffic.failures("proxy")),
    }
    for i, name in enumerate(servers):
        failed = [(item.begin_s, item.end_s) for item in traffic.failures(name)]
        counts |= {f"failed at {name}": len(failed), f"failed at {name} without a fault": unexplained(past, i, failed)}
    return counts


def test_a_few_faults_of_each_kind(spread: SpreadProject, tell: Callable[[str], None]) -> None:
    live_through(spread, iter(_FEW), 0, tell)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(3))
def test_soak_five_minutes_of_faults(spread: SpreadProject, seed: int, tell: Callable[[str], None]) -> None:
    live_through(spread, random_faults(seed, 300.0), seed, tell)
