"""Requests that come when they come, at 70 % of what the server can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.arrivals import Moments, poisson
from benchmarks.http_load import closed_loop, open_loop
from benchmarks.latency import LatencySample, quantile
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import Running, running
from benchmarks.serving import BARE, EMPTY, floors
from benchmarks.serving_project import ServedProject, pair_contender, served_project
from benchmarks.serving_race import Contender, refuse_failures, seconds
from benchmarks.serving_repo import Shape
from benchmarks.stages import log_dropped

_SHARE, _SATURATED = 0.7, 64
_TAIL, _ANSWERED = 4.0, 0.999
_ROUNDS, _OWN_S, _FLOOR_S = 6, 10, 4
_WARM_S, _CAPACITY_S = 0.5, 2


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """What a server answered at Poisson moments, and the requests a second that it could answer just before."""

    capacity: float
    opened: LatencySample


@dataclass(frozen=True, kw_only=True)
class _Round:
    """A turn of all servers: each at 70 % of its own capacity, and ours also at the rates of the floors, by name."""

    own: _Slot
    floors: dict[str, _Slot]
    own_at: dict[str, LatencySample]


def run() -> list[Result]:
    """Load our server at Poisson moments for a minute in all, and an empty endpoint and the bare path in turns with it.

    Capacity is measured before each load: what a shared machine gives changes within minutes. Our server runs through,
    so that its log's work falls into the loads. At the rate of a floor, the tails are comparable on any machine.
    """
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        own, rivals = pair_contender(project), floors(project)
        with running(own.server, project.where.server) as server:
            own.check(server)
            done = [_round(project, own, server, rivals, seed) for seed in range(rounds(_ROUNDS))]
            dropped = log_dropped(server.address, project.key)
    return _rows(done, dropped)


def _round(project: ServedProject, own: Contender, server: Running, rivals: Sequence[Contender], seed: int) -> _Round:
    beside, own_at = {}, {}
    for rival in rivals:
        name = rival.server.name
        with running(rival.server, project.where.server) as floor:
            rival.check(floor)
            beside[name] = _slot(rival, floor, seconds(_FLOOR_S), seed)
        due = poisson(_SHARE * beside[name].capacity, seconds(_FLOOR_S), seed)
        own_at[name] = _answered(own, server, due)
    return _Round(own=_slot(own, server, seconds(_OWN_S), seed), floors=beside, own_at=own_at)


def _slot(contender: Contender, server: Running, load_s: float, seed: int) -> _Slot:
    closed_loop(server.address, contender.requests, concurrency=_SATURATED, seconds=seconds(_WARM_S))
    full = closed_loop(server.address, contender.requests, concurrency=_SATURATED, seconds=seconds(_CAPACITY_S))
    refuse_failures(contender.server.name, full)
    return _Slot(capacity=full.rate, opened=_answered(contender, server, poisson(_SHARE * full.rate, load_s, seed)))


def _answered(contender: Contender, server: Running, due: Moments) -> LatencySample:
    return open_loop(server.address, contender.requests, due)


def _rows(done: Sequence[_Round], dropped: int) -> list[Result]:
    opened = [turn.own.opened for turn in done]
    latencies = _all(opened)
    p50 = quantile(latencies, 0.5)
    what = "serving_open: `/predict`, Poisson at 70 % of capacity for 60 s"

    def row(name: str, value: float, target: float | None = None) -> Result:
        against = f"p50 ({p50 * 1e3:.3g} ms)"
        ratio = value / p50
        return Result(name=f"{what}, {name}", value=value * 1e3, unit="ms", against=against, ratio=ratio, target=target)

    capacities = [turn.own.capacity for turn in done]
    sent = f"all that were due, 70 % of a closed loop's {_span(capacities)} requests/s; the log dropped {dropped:,}"
    return [
        Result(
            name=f"{what}, answered",
            value=len(latencies) / sum(sample.seconds for sample in opened),
            unit="requests/s",
            against=sent,
            ratio=len(latencies) / (len(latencies) + sum(sample.failed for sample in opened)),
            target=_ANSWERED,
        ),
        row("p50", p50),
        row("p99", quantile(latencies, 0.99), _TAIL),
        row("p99 of the median load", float(np.median([sample.quantile(0.99) for sample in opened]))),
        row("p99.9", quantile(latencies, 0.999)),
        row("how late the load sent, p99", quantile(np.concatenate([sample.late for sample in opened]), 0.99)),
        *(line for name in (EMPTY, BARE) for line in _beside(name, done, latencies)),
    ]


def _beside(name: str, done: Sequence[_Round], own: Moments) -> list[Result]:
    floor = _all([turn.floors[name].opened for turn in done])
    at_its_rate = _all([turn.own_at[name] for turn in done])
    p99, p50 = quantile(floor, 0.99), quantile(floor, 0.5)
    at = f"{name} at 70 % of its {_span([turn.floors[name].capacity for turn in done])} requests/s"
    return [
        Result(
            name="serving_open: `/predict`, Poisson at 70 % of capacity for 60 s, p99 in medians",
            value=_tail(own),
            unit="medians",
            against=f"{at} (p99 {p99 * 1e3:.3g} ms, p50 {p50 * 1e3:.3g} ms: {_tail(floor):.3g} medians)",
            ratio=_tail(own) / _tail(floor),
        ),
        Result(
            name=f"serving_open: `/predict`, Poisson at 70 % of the capacity of {name}, p99",
            value=quantile(at_its_rate, 0.99) * 1e3,
            unit="ms",
            against=f"{at} ({p99 * 1e3:.3g} ms)",
            ratio=quantile(at_its_rate, 0.99) / p99,
        ),
    ]


def _all(samples: Sequence[LatencySample]) -> Moments:
    return np.concatenate([sample.latencies for sample in samples])


def _tail(latencies: Moments) -> float:
    """Return the 99th percentile in medians."""
    return quantile(latencies, 0.99) / quantile(latencies, 0.5)


def _span(capacities: Sequence[float]) -> str:
    return f"{min(capacities):,.0f} to {max(capacities):,.0f}"
