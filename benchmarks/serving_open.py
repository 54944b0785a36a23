"""Requests that come when they come, at 70 % of what the server can answer."""

from __future__ import annotations

from benchmarks.arrivals import poisson
from benchmarks.http_load import closed_loop, open_loop
from benchmarks.latency import LatencySample, quantile
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.served import running
from benchmarks.serving_project import pair_contender, served_project
from benchmarks.serving_race import refuse_failures, seconds
from benchmarks.serving_repo import Shape
from benchmarks.stages import log_dropped

_SHARE, _SATURATED = 0.7, 64
_TAIL, _ANSWERED = 4.0, 0.999


def run() -> list[Result]:
    """Find the capacity in a closed loop, then send for a minute at Poisson moments."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        contender = pair_contender(project)
        with running(contender.server, project.where.server) as server:
            contender.check(server)
            closed_loop(server.address, contender.requests, concurrency=_SATURATED, seconds=seconds(2))
            capacity = closed_loop(server.address, contender.requests, concurrency=_SATURATED, seconds=seconds(5))
            due = poisson(_SHARE * capacity.rate, seconds(60))
            opened = open_loop(server.address, contender.requests, due)
            dropped = log_dropped(server.address, project.key)
    refuse_failures(contender.server.name, capacity)
    return _rows(capacity, opened, dropped)


def _rows(capacity: LatencySample, opened: LatencySample, dropped: int) -> list[Result]:
    p50 = opened.quantile(0.5)
    what = "serving_open: `/predict`, Poisson at 70 % of capacity for 60 s"

    def row(name: str, value: float, target: float | None = None) -> Result:
        against = f"p50 ({p50 * 1e3:.3g} ms)"
        ratio = value / p50
        return Result(name=f"{what}, {name}", value=value * 1e3, unit="ms", against=against, ratio=ratio, target=target)

    sent = f"all that were due, 70 % of a closed loop's {capacity.rate:,.0f} requests/s; the log dropped {dropped:,}"
    share = opened.answered
    return [
        Result(
            name=f"{what}, answered", value=opened.rate, unit="requests/s", against=sent, ratio=share, target=_ANSWERED
        ),
        row("p50", p50),
        row("p99", opened.quantile(0.99), _TAIL),
        row("p99.9", opened.quantile(0.999)),
        row("how late the load sent, p99", quantile(opened.late, 0.99)),
    ]
