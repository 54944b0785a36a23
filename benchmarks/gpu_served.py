"""Servers with a second runtime and without, asked by 64 and by 512 clients at once for one row each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.contestant import Race
from benchmarks.gpu_entrants import Where, nvforest_folder
from benchmarks.http_load import closed_loop
from benchmarks.meter import Report
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import Running, running, skewless_server
from benchmarks.serving_project import ServedProject, pair_contender, served_project
from benchmarks.serving_race import Contender, fact, latency_row, seconds
from benchmarks.serving_repo import Shape

CONCURRENCIES = (64, 512)
_WITH, _WITHOUT = "second runtime", "the library alone"


def served_rows(where: Where, title: str, algorithm: str, trees: int) -> Iterator[Result]:
    """Race both servers and yield the rows of each concurrency.

    A server may refuse what is more than it can take; rates and latencies are those of the answers.
    """
    shape = Shape(n_cards=10_000, n_shops=1_000, algorithm=algorithm, rounds=scaled(trees, least=10))
    with served_project(shape) as project:
        done = _race(list(_contenders(project, where)), project)
    for concurrency in CONCURRENCIES:
        what = f"{title}: server, {algorithm}, {trees:,} trees, concurrency {concurrency}"
        yield _rate_row(done, what, concurrency)
        for share in ("p50", "p99"):
            yield latency_row(done, what, _WITH, _WITHOUT, concurrency, share)


def _contenders(project: ServedProject, where: Where) -> Iterator[Contender]:
    paths = [str(nvforest_folder() or ""), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    asked = pair_contender(project)
    for name, second in ((_WITH, where), (_WITHOUT, "none")):
        first = asked.requests[0]
        server = skewless_server(project.repo, project.url, first, name, auth="required", second_runtime=second)
        yield replace(asked, server=replace(server, environment={**server.environment, "PYTHONPATH": path}))


def _race(contenders: Sequence[Contender], project: ServedProject) -> Race:
    reports: dict[str, list[Report]] = {contender.server.name: [] for contender in contenders}
    for _ in range(rounds(3)):
        for contender in contenders:
            with running(contender.server, project.where.server) as server:
                contender.check(server)
                facts: dict[str, float] = {}
                for concurrency in CONCURRENCIES:
                    facts |= _loaded(contender, server, concurrency)
            reports[contender.server.name].append(Report(laps={}, facts=facts, digest="-"))
    return Race(reports=reports)


def _loaded(contender: Contender, server: Running, concurrency: int) -> dict[str, float]:
    for lasting in (seconds(0.5), seconds(2)):  # the first is to warm it up
        measured = closed_loop(server.address, contender.requests, concurrency=concurrency, seconds=lasting)
    facts = {**measured.facts(), "answered": measured.answered}
    return {f"{concurrency} {name}": value for name, value in facts.items()}


def _rate_row(done: Race, what: str, concurrency: int) -> Result:
    rate, answered = fact(f"{concurrency} rate"), fact(f"{concurrency} answered")
    own, other = (done.median(name, answered) * 100 for name in (_WITH, _WITHOUT))
    told = f"{done.median(_WITHOUT, rate):,.0f} requests/s; share of requests answered: {own:.0f} %, {other:.0f} %"
    return Result(
        name=what,
        value=done.median(_WITH, rate),
        unit="requests/s",
        against=f"{_WITHOUT} ({told})",
        ratio=done.ratio(_WITH, _WITHOUT, rate),
    )
