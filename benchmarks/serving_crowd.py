"""More requests than the server can answer: what it still answers, and whom."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.crowd import Crowded, crowd
from benchmarks.http_load import closed_loop
from benchmarks.latency import quantile
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.served import running
from benchmarks.serving_project import pair_contender, served_project
from benchmarks.serving_race import Contender, refuse_failures, seconds
from benchmarks.serving_repo import Shape

_SATURATED, _CROWD, _ROUNDS = 64, 1_000, 3
_KEPT, _POLITE = 0.8, 0.9
_LOADS = {"2 x capacity": 2.0, "10 x capacity": 10.0, "all ask again at once": float("inf")}


def run() -> list[Result]:
    """Find the capacity, then let 1,000 connections ask for more; beside it the same server that lets nobody wait."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        waits = pair_contender(project)
        environment = {**waits.server.environment, "SKEWLESS_MAX_WAIT_MS": "0"}
        refuses = replace(waits, server=replace(waits.server, environment=environment))
        core = project.where.server
        rounds = [(_lived(waits, core), _lived(refuses, core)) for _ in range(_ROUNDS)]
    return [
        row
        for load in _LOADS
        for row in _rows(load, [(own[load], peer[load], capacity) for (own, capacity), (peer, _) in rounds])
    ]


def _lived(contender: Contender, core: int | None) -> tuple[dict[str, Crowded], float]:
    """Return what became of each load, and the capacity."""
    with running(contender.server, core) as server:
        contender.check(server)
        closed_loop(server.address, contender.requests, concurrency=_SATURATED, seconds=seconds(1))
        capacity = closed_loop(server.address, contender.requests, concurrency=_SATURATED, seconds=seconds(5))
        refuse_failures(contender.server.name, capacity)
        loads = {
            load: crowd(
                server.address,
                contender.requests,
                connections=scaled(_CROWD, least=100),
                seconds=seconds(5),
                rate=times * capacity.rate,
            )
            for load, times in _LOADS.items()
        }
    return loads, capacity.rate


def _rows(load: str, rounds: Sequence[tuple[Crowded, Crowded, float]]) -> list[Result]:
    what = f"serving_crowd: 1,000 connections, {load}"
    own, peer = rounds[-1][:2]
    offered = statistics.median(mine.offered for mine, _, _ in rounds)
    capacity = statistics.median(capacity for _, _, capacity in rounds)
    impolite = statistics.median(theirs.polite for _, theirs, _ in rounds)
    refusing = f"refused at once: {peer.rate:,.0f} answers/s and {peer.refusals:,.0f} refusals/s"
    return [
        Result(
            name=f"{what}, answers",
            value=statistics.median(mine.rate for mine, _, _ in rounds),
            unit="requests/s",
            against=f"capacity ({capacity:,.0f} requests/s; {offered:,.0f} offered; {refusing})",
            ratio=statistics.median(mine.rate / whole for mine, _, whole in rounds),
            target=_KEPT,
        ),
        Result(
            name=f"{what}, polite clients answered",
            value=statistics.median(mine.polite for mine, _, _ in rounds) * 100,
            unit="% of what they asked/s",
            against=f"all that they asked (refused at once: {impolite:.0%})",
            ratio=statistics.median(mine.polite for mine, _, _ in rounds),
            target=_POLITE,
        ),
        Result(
            name=f"{what}, p99 of an answer",
            value=statistics.median(quantile(mine.latencies, 0.99) for mine, _, _ in rounds) * 1e3,
            unit="ms",
            against=f"polite clients' p99 ({quantile(own.polite_latencies, 0.99) * 1e3:.3g} ms)",
            ratio=None,
        ),
    ]
