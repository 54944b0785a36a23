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
_KEPT, _POLITE, _SLOWER = 0.8, 1.0, 2.0
_FULL = "1 x capacity"
_LOADS = {
    _FULL: 1.0,
    "2 x capacity": 2.0,
    "5 x capacity": 5.0,
    "10 x capacity": 10.0,
    "all ask again at once": float("inf"),
}
_Lived = dict[str, Crowded]


def run() -> list[Result]:
    """Find the capacity, then let 1,000 connections ask for more; beside it the same server that lets nobody wait.

    The crowd has one key, and the polite clients another one.
    """
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        waits = pair_contender(project)
        polite = [project.predict(pair[None], project.other_key) for pair in project.pairs()]
        environment = {**waits.server.environment, "SKEWLESS_MAX_WAIT_MS": "0"}
        refuses = replace(waits, server=replace(waits.server, environment=environment))
        core = project.where.server
        rounds = [(_lived(waits, polite, core), _lived(refuses, polite, core)) for _ in range(_ROUNDS)]
    return [row for load in _LOADS for row in _rows(load, rounds)]


def _lived(contender: Contender, polite: Sequence[bytes], core: int | None) -> tuple[_Lived, float]:
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
                polite,
                connections=scaled(_CROWD, least=100),
                seconds=seconds(5),
                rate=times * capacity.rate,
            )
            for load, times in _LOADS.items()
        }
    return loads, capacity.rate


def _rows(load: str, rounds: Sequence[tuple[tuple[_Lived, float], tuple[_Lived, float]]]) -> list[Result]:
    what = f"serving_crowd: 1,000 connections, {load}"
    owns, peers = [own[load] for (own, _), _ in rounds], [peer[load] for _, (peer, _) in rounds]
    offered = statistics.median(own.offered for own in owns)
    capacity = statistics.median(capacity for (_, capacity), _ in rounds)
    polite = statistics.median(own.polite for own in owns)
    tails = [quantile(own.latencies, 0.99) for own in owns]
    full = [quantile(own[_FULL].latencies, 0.99) for (own, _), _ in rounds]
    late = max(quantile(own.turns, 0.99) for own in owns)
    refusing = f"refused at once: {peers[-1].rate:,.0f} answers/s and {peers[-1].refusals:,.0f} refusals/s"
    return [
        Result(
            name=f"{what}, answers",
            value=statistics.median(own.rate for own in owns),
            unit="requests/s",
            against=f"capacity ({capacity:,.0f} requests/s; {offered:,.0f} offered; {refusing})",
            ratio=statistics.median(own[load].rate / whole for (own, whole), _ in rounds),
            target=_KEPT,
        ),
        Result(
            name=f"{what}, polite clients with a key of their own answered",
            value=polite * 100,
            unit="% of what they asked/s",
            against=f"all that they asked (refused at once: {statistics.median(peer.polite for peer in peers):.0%})",
            ratio=polite,
            target=_POLITE,
        ),
        Result(
            name=f"{what}, p99 of an answer",
            value=statistics.median(tails) * 1e3,
            unit="ms",
            against=f"{_FULL} ({statistics.median(full) * 1e3:.3g} ms; the load noticed p99 {late * 1e3:.2g} ms late)",
            ratio=statistics.median(tail / whole for tail, whole in zip(tails, full, strict=True)),
            target=None if load == _FULL else _SLOWER,
        ),
    ]
