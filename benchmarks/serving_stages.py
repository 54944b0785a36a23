"""Which stages of the server the time of a request is spent in, by its own histograms."""

from __future__ import annotations

from benchmarks.http_load import closed_loop
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.served import Running, running
from benchmarks.serving_project import ServedProject, pair_contender, served_project
from benchmarks.serving_race import Contender, seconds
from benchmarks.serving_repo import Shape
from benchmarks.stages import STAGES, means, observed

CONCURRENCIES = (1, 16, 64)


def run() -> list[Result]:
    """Load the server at each concurrency and read its histograms before and after."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        contender = pair_contender(project)
        with running(contender.server, project.where.server) as server:
            contender.check(server)
            return [row for concurrency in CONCURRENCIES for row in _profiled(project, contender, server, concurrency)]


def _profiled(project: ServedProject, contender: Contender, server: Running, concurrency: int) -> list[Result]:
    closed_loop(server.address, contender.requests, concurrency=concurrency, seconds=seconds(1))
    before, used = observed(server.address, project.key), server.cpu_seconds()
    measured = closed_loop(server.address, contender.requests, concurrency=concurrency, seconds=seconds(4))
    cost = (server.cpu_seconds() - used) / len(measured.latencies)
    stages = means(before, observed(server.address, project.key))
    whole, requests = stages["all"]
    what = f"serving_stages: concurrency {concurrency}, mean"

    def row(name: str, value: float, times: float) -> Result:
        against = f"a request in all ({whole * 1e6:.3g} us); {times:.3g} of them a request"
        return Result(name=f"{what} {name}", value=value * 1e6, unit="us", against=against, ratio=value / whole)

    told = [(f"stage {name}", *stages[name]) for name in STAGES if name in stages]
    return [
        row("CPU of the server", cost, 1.0),
        *(row(name, value, count / requests) for name, value, count in told),
        Result(name=f"{what} batch", value=stages["batch"][0], unit="requests", against="-", ratio=None),
    ]
