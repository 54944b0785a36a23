"""What tracing costs a server: off, on and not sampled, 1 % sampled, all sampled; a collector receives the spans.

The differences are smaller than the noise between two starts, and than that of a busy machine. So all servers run at
once, and the load goes from one to the next in short laps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.contestant import Race
from benchmarks.http_load import closed_loop
from benchmarks.meter import Report
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import Running, peer_server, running
from benchmarks.serving_project import pair_contender, served_project
from benchmarks.serving_race import Contender, cost_row, rate_row, refuse_failures, seconds
from benchmarks.serving_repo import Shape

CONCURRENCY = 64
OFF, AGAIN = "traces off", "traces off, again"
RATES: Mapping[str, str] = {"0 % sampled": "0", "1 % sampled": "0.01", "all sampled": "1"}
_MAY_COST = {AGAIN: None, "0 % sampled": None, "1 % sampled": 0.02, "all sampled": None}
_PING = b"POST /v1/traces HTTP/1.1\r\nHost: c\r\nContent-Length: 0\r\n\r\n"
_NAME = "serving_traces"


def run() -> list[Result]:
    """Load the same server with each sampling in turn; the second one without traces shows the noise."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    collector = peer_server("collector", name="collector", first=_PING)
    with ExitStack() as stack:
        project = stack.enter_context(served_project(shape))
        received = stack.enter_context(running(collector, project.where.load))
        url = f"http://{received.address.host}:{received.address.port}"
        servers = []
        for contender in contenders_of(pair_contender(project), url):
            server = stack.enter_context(running(contender.server, project.where.server))
            contender.check(server)
            load_once(contender, server)
            servers.append((contender, server))
        return rows(alternate(servers, rounds(60)))


def contenders_of(plain: Contender, url: str) -> list[Contender]:
    """Return the server without traces, again, and with each rate."""
    found = [named(plain, OFF, {}), named(plain, AGAIN, {})]
    for name, rate in RATES.items():
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
        variables["OTEL_BSP_SCHEDULE_DELAY"] = "100"  # so that a lap pays for the spans of its own requests
        found.append(named(plain, name, {**variables, "OTEL_TRACES_SAMPLER_ARG": rate}))
    return found


def named(plain: Contender, name: str, variables: Mapping[str, str]) -> Contender:
    """Return a contender with another name and more variables."""
    server = replace(plain.server, name=name, environment={**plain.server.environment, **variables})
    return replace(plain, server=server)


def alternate(servers: Sequence[tuple[Contender, Running]], turns: int) -> Race:
    """Load each server for a short while, in turn; every other round in the other direction."""
    reports: dict[str, list[Report]] = {contender.server.name: [] for contender, _ in servers}
    for turn in range(turns):
        for contender, server in servers if turn % 2 else reversed(servers):
            facts = load_once(contender, server)
            reports[contender.server.name].append(Report(laps={}, facts=facts, digest="-"))
    return Race(reports=reports)


def load_once(contender: Contender, server: Running) -> dict[str, float]:
    """Return the rate, and the microseconds of CPU a request, threads of the tracer included."""
    before = server.cpu_seconds()
    measured = closed_loop(server.address, contender.requests, concurrency=CONCURRENCY, seconds=seconds(0.5))
    used = server.cpu_seconds() - before
    refuse_failures(contender.server.name, measured)
    cost = used / len(measured.latencies) * 1e6
    return {f"{CONCURRENCY} rate": measured.facts()["rate"], f"{CONCURRENCY} cpu_us": cost}


def rows(race: Race) -> list[Result]:
    """Return the rate and the cost of each sampling, against the server without traces."""
    found = []
    for name, cost in _MAY_COST.items():
        what = f"{_NAME}: {name}, {CONCURRENCY} clients"
        found.append(rate_row(race, what, name, OFF, CONCURRENCY, target=None if cost is None else 1 - cost))
        found.append(cost_row(race, what, name, OFF, CONCURRENCY))
    return found
