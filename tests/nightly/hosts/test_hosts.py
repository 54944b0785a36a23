"""A project on three hosts loses nothing and counts nothing twice, whatever happens to hosts and networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.nightly.hosts import checks
from tests.nightly.hosts.faults import Fault, FaultInjector, PastFault, random_faults, unexplained
from tests.nightly.hosts.publisher import FactPublisher
from tests.nightly.hosts.spread import SpreadProject
from tests.nightly.hosts.traffic import ClientTraffic
from tests.worlds.waiting import until

_FEW = (
    Fault(kind="kill", host=0, target="stream", seconds=1.0),
    Fault(kind="cut off", host=1, target="database", seconds=4.0),
    Fault(kind="cut off", host=0, target="storage", seconds=4.0),
    Fault(kind="pause", host=0, target="scheduler", seconds=4.0),
    Fault(kind="cut off", host=0, target="everybody", seconds=3.0),
    Fault(kind="kill", host=1, target="serve", seconds=0.0, without="storage"),
)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast clients ask and the batch job publishes: seconds between two requests, and two materializations."""

    ask_s: float
    publish_s: float


def live_through(
    spread: SpreadProject, faults: Iterator[Fault], seed: int, tell: Callable[[str], None], pace: Pace
) -> None:
    """Inject faults while clients and the publisher work; then count, and check all promises."""
    traffic = spread.traffic(seed, pace.ask_s)
    publisher = FactPublisher(spread.project, spread.project.hosts[2], pause_s=pace.publish_s)
    injector = FaultInjector(spread.project, spread.services)
    past: list[PastFault] = []
    with traffic.running(), publisher.running():
        for fault in faults:
            tell(f"seed {seed}: {fault}")
            past.append(injector.inject(fault))
    counts = count(spread, traffic, publisher, past, tell)
    tell(f"seed {seed}, {len(past)} faults" + "".join(f"\n  {n:8} {name}" for name, n in counts.items()))
    zero = ("lost", "twice", "nowhere", "wrong", "not logged", "different", "without a fault")
    assert {name: n for name, n in counts.items() if n and name.endswith(zero)} == {}


def count(
    spread: SpreadProject,
    traffic: ClientTraffic,
    publisher: FactPublisher,
    past: Sequence[PastFault],
    tell: Callable[[str], None],
) -> checks.Counts:
    """Let the workers finish; return all counts."""
    project = spread.project
    until(project.is_drained)
    for host in spread.serving:
        assert host.programs["scheduler"].stop() == 0
    states = project.states
    servers = {name: url for name, url in traffic.targets.items() if name != "proxy"}
    counts = {
        **checks.count_events(states[0], traffic.accepted),
        **checks.count_wrong_values(servers.values(), traffic.accepted, publisher.expected_fleets()),
        **checks.count_runs(states[0], [host.folder / "scheduler.log" for host in spread.serving]),
        **checks.count_predictions(states, traffic),
        **checks.count_replayed(project.ask),
        "materializations done": publisher.codes.count(0),
        "materializations failed": len(publisher.codes) - publisher.codes.count(0),
        "event requests repeated": traffic.repeats,
        "failed at the proxy": len(traffic.failures("proxy")),
    }
    for i, name in enumerate(servers):
        failures = traffic.failures(name)
        no_fault = unexplained(past, i, failures)
        for item in no_fault[:3]:
            tell(f"{name} failed without a fault: {item}")
        counts |= {f"failed at {name}": len(failures), f"failed at {name} without a fault": len(no_fault)}
    return counts


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_few_faults_of_each_kind(spread: SpreadProject, tell: Callable[[str], None]) -> None:
    live_through(spread, iter(_FEW), 0, tell, Pace(ask_s=0.2, publish_s=6.0))


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(3))
def test_soak_ten_minutes_of_faults(spread: SpreadProject, seed: int, tell: Callable[[str], None]) -> None:
    live_through(spread, random_faults(seed, 600.0), seed, tell, Pace(ask_s=0.05, publish_s=2.0))
