"""Requests that come when they come, at 70 % of what the server can answer."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.arrivals import poisson
from benchmarks.http_load import closed_loop, open_loop
from benchmarks.latency import LatencySample, quantile
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.served import running
from benchmarks.serving import BARE, EMPTY, floors
from benchmarks.serving_project import ServedProject, pair_contender, served_project
from benchmarks.serving_race import Contender, refuse_failures, seconds
from benchmarks.serving_repo import Shape
from benchmarks.stages import log_dropped

_SHARE, _SATURATED = 0.7, 64
_TAIL, _ANSWERED = 4.0, 0.999
_OWN_S, _FLOOR_S = 60, 20


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What a server did; the log of a peer drops nothing."""

    capacity: LatencySample
    opened: LatencySample
    dropped: int

    def tail(self, share: float = 0.99) -> float:
        """Return a quantile of the latencies, in medians."""
        return self.opened.quantile(share) / self.opened.quantile(0.5)


def run() -> list[Result]:
    """Find the capacity in a closed loop, then send for a minute at Poisson moments.

    An empty endpoint and the bare path get the same for a third of that time: their tails are the machine's.
    """
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        own = pair_contender(project)
        empty, bare = (_load(project, floor, seconds(_FLOOR_S)) for floor in floors(project))
        return _rows(_load(project, own, seconds(_OWN_S)), {EMPTY: empty, BARE: bare})


def _load(project: ServedProject, contender: Contender, load_s: float) -> _Opened:
    with running(contender.server, project.where.server) as server:
        contender.check(server)
        closed_loop(server.address, contender.requests, concurrency=_SATURATED, seconds=seconds(2))
        capacity = closed_loop(server.address, contender.requests, concurrency=_SATURATED, seconds=seconds(5))
        refuse_failures(contender.server.name, capacity)
        opened = open_loop(server.address, contender.requests, poisson(_SHARE * capacity.rate, load_s))
        is_own = contender.server.name not in {EMPTY, BARE}
        dropped = log_dropped(server.address, project.key) if is_own else 0
    return _Opened(capacity=capacity, opened=opened, dropped=dropped)


def _rows(own: _Opened, floors_opened: dict[str, _Opened]) -> list[Result]:
    opened, p50, rate = own.opened, own.opened.quantile(0.5), own.capacity.rate
    what = "serving_open: `/predict`, Poisson at 70 % of capacity for 60 s"

    def row(name: str, value: float, target: float | None = None) -> Result:
        against = f"p50 ({p50 * 1e3:.3g} ms)"
        ratio = value / p50
        return Result(name=f"{what}, {name}", value=value * 1e3, unit="ms", against=against, ratio=ratio, target=target)

    sent = f"all that were due, 70 % of a closed loop's {rate:,.0f} requests/s; the log dropped {own.dropped:,}"
    return [
        Result(
            name=f"{what}, answered",
            value=opened.rate,
            unit="requests/s",
            against=sent,
            ratio=opened.answered,
            target=_ANSWERED,
        ),
        row("p50", p50),
        row("p99", opened.quantile(0.99), _TAIL),
        row("p99.9", opened.quantile(0.999)),
        row("how late the load sent, p99", quantile(opened.late, 0.99)),
        *(_against(what, own, name, floor) for name, floor in floors_opened.items()),
    ]


def _against(what: str, own: _Opened, name: str, floor: _Opened) -> Result:
    told = floor.opened
    at = f"{told.rate:,.0f} requests/s, p99 {told.quantile(0.99) * 1e3:.3g} ms, p50 {told.quantile(0.5) * 1e3:.3g} ms"
    return Result(
        name=f"{what}, p99 in medians",
        value=own.tail(),
        unit="medians",
        against=f"{name} at 70 % of its own capacity ({at}: {floor.tail():.3g} medians)",
        ratio=own.tail() / floor.tail(),
    )
