"""Faults of hosts and networks, one after the other, by a seed or by a list."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.nightly.hosts.host import Host
from tests.nightly.hosts.project import HostProject
from tests.nightly.hosts.traffic import Exchange

Kind = Literal["kill", "pause", "cut off"]
_RECOVERY_S = 5.0  # after a network heals: the circuit breaker, and TCP that sends again
_FILL_S = 2.0  # in which a server writes what it cannot ship
# Faults with which a host cannot predict: the server is gone, or nobody reaches it, or it does not reach the store.
_UNSERVED = {"kill serve", "pause serve", "cut off store", "cut off everybody"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Args:
        host: number of the host, from 0.
        target: a program that is killed or paused; or the host to which packets are dropped: ``database``,
            ``storage``, ``store`` or ``everybody``.
        seconds: until the program starts again or continues, or the network heals.
        without: the service from which a killed program was cut off before, and still is when it starts again.
    """

    kind: Kind
    host: int
    target: str
    seconds: float
    without: str | None = None

    def __str__(self) -> str:
        """Return the fault as a line of a report."""
        without = f" without {self.without}" if self.without else ""
        return f"{self.kind} {self.target} on host {self.host + 1} for {self.seconds:.1f} s{without}"


@dataclass(frozen=True, kw_only=True)
class PastFault:
    """A fault with its beginning and end, including the recovery; times are of the monotonic clock."""

    fault: Fault
    begin_s: float
    end_s: float

    def explains(self, host: int, begin_s: float, end_s: float) -> bool:
        """Return whether a request to a host may fail because of the fault."""
        is_served = f"{self.fault.kind} {self.fault.target}" not in _UNSERVED
        return self.fault.host == host and not is_served and begin_s < self.end_s and end_s > self.begin_s


def random_faults(seed: int, seconds: float) -> Iterator[Fault]:
    """Return faults by a seed until some seconds have passed: each kind on each target once before any comes again."""
    chance, end = random.Random(seed), time.monotonic() + seconds
    programs = [(kind, name) for kind in ("kill", "pause") for name in ("serve", "stream", "scheduler")]
    networks = [("cut off", name) for name in ("database", "storage", "store", "everybody")]
    cases: list[tuple[Any, ...]] = [(*case, None, host) for case in [*programs, *networks] for host in (0, 1)]
    cases += [("kill", "serve", name, host) for name in ("database", "storage") for host in (0, 1)]
    cases += [("kill", "materialize", None, 2), *((*case, None, 2) for case in networks)]
    while True:
        for kind, target, without, host in chance.sample(cases, len(cases)):
            if time.monotonic() > end:
                return
            seconds = chance.choice([0.5, 2.0, 6.0, 13.0])
            yield Fault(kind=kind, host=host, target=target, seconds=seconds, without=without)


@dataclass
class FaultInjector:
    """Injects faults into the hosts of a project.

    Args:
        services: the hosts of ``database``, ``storage``, ``store`` and the load balancer.
    """

    project: HostProject
    services: dict[str, Host]

    def inject(self, fault: Fault, pause_s: float = 1.0) -> PastFault:
        """Inject a fault, and end it; return when it was, after a pause."""
        begin = time.monotonic()
        host = self.project.hosts[fault.host]
        if fault.kind == "cut off":
            everybody = [*self.services.values(), *(other for other in self.project.hosts if other is not host)]
            host.cut_off(*(everybody if fault.target == "everybody" else [self.services[fault.target]]))
            time.sleep(fault.seconds)
            host.heal()
            end = time.monotonic() + _RECOVERY_S
        elif fault.target in host.programs:
            if fault.without:
                host.cut_off(self.services[fault.without])
                time.sleep(_FILL_S)
            self._interrupt(host, fault)
            host.heal()
            end = time.monotonic() + 1.0  # a request may have begun before the interruption
        else:
            end = begin  # no such program runs now
        time.sleep(pause_s)
        return PastFault(fault=fault, begin_s=begin, end_s=end)

    def _interrupt(self, host: Host, fault: Fault) -> None:
        program = host.programs[fault.target]
        if fault.kind == "pause":
            program.pause()
            time.sleep(fault.seconds)
            program.resume()
            return
        program.kill()
        time.sleep(fault.seconds)
        if fault.target != "materialize":
            self.project.start(host, fault.target)


def unexplained(past: Sequence[PastFault], host: int, failures: Sequence[Exchange]) -> list[Exchange]:
    """Return the failed requests to a host that no fault explains; a busy machine explains a server that is busy."""
    return [
        item
        for item in failures
        if not item.is_busy and not any(fault.explains(host, item.begin_s, item.end_s) for fault in past)
    ]
