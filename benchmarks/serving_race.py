"""Servers side by side: each started, its answers compared, loaded and stopped in turn, round by round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.contestant import ContestantError, Quantity, Race
from benchmarks.cores import Cores
from benchmarks.http_load import ask, closed_loop
from benchmarks.latency import LatencySample
from benchmarks.meter import Report
from benchmarks.result import Result
from benchmarks.scale import scale
from benchmarks.served import Running, Server, running
from benchmarks.serving_repo import Matrix

_WARM_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server in a race.

    Args:
        requests: what it is asked, over and over.
        expected: the scores of the first requests, shape ``(n,)`` or ``(n, rows)``; empty: it scores nothing.
        scores: reads them out of a reply.
    """

    server: Server
    requests: Sequence[bytes]
    expected: Matrix = field(default_factory=lambda: np.empty(0))
    scores: Callable[[bytes], object] = bytes.decode

    def check(self, server: Running) -> None:
        """Compare the answers, bit for bit.

        Raises:
            ContestantError: one differs.
        """
        bodies = ask(server.address, self.requests[: len(self.expected)])
        found = np.array([self.scores(body) for body in bodies], dtype=np.float64).reshape(self.expected.shape)
        if not np.array_equal(found, self.expected):
            far = np.abs(found - self.expected).max()
            raise ContestantError(f"{self.server.name} has other scores than the model: {far} apart at most")


def race_servers(
    contenders: Sequence[Contender], concurrencies: Sequence[int], where: Cores, *, rounds: int, load_s: float
) -> Race:
    """Load every server at every concurrency, in turn.

    Each report has the facts of ``LatencySample``, the share of its core that the server took (``server``) and the
    microseconds of it that a request took (``cpu_us``), their names preceded by the concurrency: ``16 rate``.

    Every turn has a process of its own: a server that waits may still disturb the one that is measured.

    Raises:
        ContestantError: one does not start, answers wrongly, or answers a request with an error.
    """
    reports: dict[str, list[Report]] = {contender.server.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            with running(contender.server, where.server) as server:
                contender.check(server)
                facts: dict[str, float] = {"ready": server.ready_seconds}
                for concurrency in concurrencies:
                    told = load_server(contender, server, concurrency, load_s)
                    facts |= {f"{concurrency} {name}": value for name, value in told.items()}
            reports[contender.server.name].append(Report(laps={}, facts=facts, digest="-"))
    return Race(reports=reports)


def load_server(contender: Contender, server: Running, concurrency: int, load_s: float) -> dict[str, float]:
    """Warm a server up, load it, and return what was measured.

    Raises:
        ContestantError: a request was answered with an error.
    """
    warm = min(_WARM_S, load_s)
    closed_loop(server.address, contender.requests, concurrency=concurrency, seconds=warm)
    before = server.cpu_seconds()
    measured = closed_loop(server.address, contender.requests, concurrency=concurrency, seconds=load_s)
    used = server.cpu_seconds() - before
    refuse_failures(contender.server.name, measured)
    return {
        **measured.facts(),
        "server": used / measured.seconds,
        "cpu_us": used / len(measured.latencies) * 1e6,
    }


def refuse_failures(name: str, measured: LatencySample) -> None:
    """Check that every request was answered with 200.

    Raises:
        ContestantError: one was not.
    """
    if measured.failed:
        told = measured.refusal.decode(errors="replace")
        raise ContestantError(f"{name} refused {measured.failed} requests, answered {len(measured.latencies)}: {told}")


def seconds(whole: float) -> float:
    """Return how long a load lasts at the chosen scale: a trial of a thousandth takes a thirtieth of the time."""
    return whole * max(min(math.sqrt(scale()), 1.0), 0.03)


def fact(name: str) -> Quantity:
    """Return what reads a fact out of a report."""
    return lambda report: report.facts[name]


def rate_row(race: Race, what: str, own: str, peer: str, concurrency: int, target: float | None = None) -> Result:
    """Return the row that compares the rates of two servers."""
    rate = fact(f"{concurrency} rate")
    against = f"{peer} ({race.median(peer, rate):,.0f} requests/s)"
    ratio = race.ratio(own, peer, rate)
    value = race.median(own, rate)
    return Result(name=what, value=value, unit="requests/s", against=against, ratio=ratio, target=target)


def latency_row(
    race: Race, what: str, own: str, peer: str, concurrency: int, share: str, target: float | None = None
) -> Result:
    """Return the row that compares a quantile of the latencies of two servers."""
    latency = fact(f"{concurrency} {share}")
    against = f"{peer} ({race.median(peer, latency):.3g} ms)"
    ratio = race.ratio(own, peer, latency)
    value = race.median(own, latency)
    return Result(name=f"{what}, {share}", value=value, unit="ms", against=against, ratio=ratio, target=target)


def cost_row(race: Race, what: str, own: str, peer: str, concurrency: int) -> Result:
    """Return the row that compares what a request costs the servers' core."""
    cost = fact(f"{concurrency} cpu_us")
    return Result(
        name=f"{what}, CPU of the server a request",
        value=race.median(own, cost),
        unit="us",
        against=f"{peer} ({race.median(peer, cost):.3g} us)",
        ratio=race.ratio(own, peer, cost),
    )


def load_row(race: Race, what: str, own: str, concurrency: int) -> Result:
    """Return the row that says whether the load had room on its core: it is no race against the load."""
    share = race.median(own, fact(f"{concurrency} load"))
    taken = race.median(own, fact(f"{concurrency} server"))
    against = f"the server's share of its core ({taken * 100:.0f} %)"
    return Result(
        name=f"{what}, the load's share of its core", value=share * 100, unit="%", against=against, ratio=None
    )
