"""What tracing costs a server: none, on and not sampled, 1 % sampled, all sampled; a collector receives the spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.contestant import Race
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import peer_server, running
from benchmarks.serving_project import pair_contender, served_project
from benchmarks.serving_race import Contender, cost_row, race_servers, rate_row, seconds
from benchmarks.serving_repo import Shape

CONCURRENCY = 64
OFF, AGAIN = "traces off", "traces off, again"
RATES: Mapping[str, str] = {"0 % sampled": "0", "1 % sampled": "0.01", "all sampled": "1"}
_MAY_COST = {"1 % sampled": 0.02}
_PING = b"POST /v1/traces HTTP/1.1\r\nHost: c\r\nContent-Length: 0\r\n\r\n"
_NAME = "serving_traces"


def run() -> list[Result]:
    """Load the same server with each sampling in turn; the second one without traces shows the noise."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    collector = peer_server("collector", name="collector", first=_PING)
    with served_project(shape) as project, running(collector, project.where.load) as received:
        url = f"http://{received.address.host}:{received.address.port}"
        contenders = contenders_of(pair_contender(project), url)
        race = race_servers(contenders, [CONCURRENCY], project.where, rounds=rounds(7), load_s=seconds(4))
    return rows(race)


def contenders_of(plain: Contender, url: str) -> list[Contender]:
    """Return the server without traces, again, and with each rate."""
    found = [named(plain, OFF, {}), named(plain, AGAIN, {})]
    for name, rate in RATES.items():
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
        found.append(named(plain, name, {**variables, "OTEL_TRACES_SAMPLER_ARG": rate}))
    return found


def named(plain: Contender, name: str, variables: Mapping[str, str]) -> Contender:
    """Return a contender with another name and more variables."""
    server = replace(plain.server, name=name, environment={**plain.server.environment, **variables})
    return replace(plain, server=server)


def rows(race: Race) -> list[Result]:
    """Return the rate and the cost of each sampling, against the server without traces."""
    found = []
    for name in (AGAIN, *RATES):
        what, cost = f"{_NAME}: {name}, {CONCURRENCY} clients", _MAY_COST.get(name)
        found.append(rate_row(race, what, name, OFF, CONCURRENCY, target=None if cost is None else 1 - cost))
        found.append(cost_row(race, what, name, OFF, CONCURRENCY))
    return found
