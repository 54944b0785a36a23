"""Services with windows, text, transforms or on a cluster, against a service of numbers of the same size.

All have 40 features, 20 of cards and 20 of the other kind, and a model of 200 trees. One server has all models, so that
the kinds take turns within seconds; the service on the cluster is that of numbers again, on a server of its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.contestant import Contestant, ContestantError, Race
from benchmarks.cores import cores, pin_redis
from benchmarks.http_load import ask
from benchmarks.http_wire import post
from benchmarks.meter import Meter, Report
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import Running, running, skewless_server
from benchmarks.server import own_server
from benchmarks.serving_kinds_project import KINDS, NUMBERS, write_project
from benchmarks.serving_race import Contender, fact, load_server, seconds

CLUSTER = "on a cluster"
CONCURRENCIES = (1, 16, 64)
_TARGET = 1.15
_CHECKED = 50


def run() -> list[Result]:
    """Load each kind at each concurrency, in turn."""
    n_cards, n_trees = scaled(20_000), scaled(200, least=10)
    where = cores()
    reports: dict[str, list[Report]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        plain, nodes = stack.enter_context(own_server()), stack.enter_context(_cluster(folder / "nodes", where.load))
        pin_redis(plain, where.load)
        servers: dict[str, Running] = {}
        for url, kinds in ((plain, KINDS), (nodes, (NUMBERS,))):
            repo = write_project(folder / f"repo{len(servers)}", n_cards, n_trees, kinds)
            arguments = {"repo": str(repo), "url": url}
            Contestant(name="the project", entrant=fill, arguments=arguments).run()
            first = _requests(n_cards, NUMBERS)[0]
            server = stack.enter_context(running(skewless_server(repo, url, first), where.server))
            servers |= {CLUSTER if servers else kind: server for kind in kinds}
        for _ in range(rounds(5)):
            for kind, server in servers.items():
                reports.setdefault(kind, []).append(_load(kind, server, n_cards))
    race = Race(reports=reports)
    return [row for n in CONCURRENCIES for kind in (*KINDS[1:], CLUSTER) for row in _rows(race, kind, n)]


def fill(meter: Meter, *, repo: str, url: str) -> str:
    """Apply, fill and train: an entrant, so that it has a process of its own."""
    from skewless import Project  # noqa: PLC0415 - it brings Feast with it, which the parent does without

    with Project(repo, redis_url=url) as project:
        project.apply()
        with meter.lap("fill"):
            project.materialize(check=False)
            if project.applied.plan.windows:
                project.import_events()
                project.backfill()
        for spec in project.models:
            project.train(spec.name)
    return "-"


def _load(kind: str, server: Running, n_cards: int) -> Report:
    requests = _requests(n_cards, NUMBERS if kind == CLUSTER else kind)
    for body in ask(server.address, requests[:_CHECKED]):
        if b'"degraded":false' not in body.replace(b" ", b"") or b"NOT_FOUND" in body:
            raise ContestantError(f"{kind}: a prediction lacks features: {body[:500]!r}")
    contender = Contender(server=skewless_server(Path(), "", requests[0], kind), requests=requests)
    told: dict[str, float] = {}
    for n in CONCURRENCIES:
        told |= {f"{n} {name}": value for name, value in load_server(contender, server, n, seconds(1)).items()}
    return Report(laps={}, facts=told, digest="-")


def _requests(n_cards: int, kind: str) -> list[bytes]:
    pairs = np.random.default_rng(5).integers(0, n_cards, (2_000, 2)).tolist()
    asked = b'"amount":12.5,' if kind == "with a transform" else b""
    model = KINDS.index(kind)
    return [
        post("/predict", b'{"model":"m%d","rows":[{%b"card_id":%d,"shop_id":%d}]}' % (model, asked, card, shop))
        for card, shop in pairs
    ]


def _rows(race: Race, kind: str, concurrency: int) -> Iterator[Result]:
    cost = fact(f"{concurrency} cpu_us")
    yield Result(
        name=f"serving_kinds: 40 features, 200 trees, {kind}, concurrency {concurrency}, CPU of the server a request",
        value=race.median(kind, cost),
        unit="us",
        against=f"{NUMBERS} ({race.median(NUMBERS, cost):.3g} us)",
        ratio=race.ratio(kind, NUMBERS, cost),
        target=_TARGET,
    )


@contextmanager
def _cluster(folder: Path, core: int) -> Iterator[str]:
    from skewless.infra.reads.online.private_server import find_binary  # noqa: PLC0415 - as the tests' servers below
    from tests.servers.cluster import cluster  # noqa: PLC0415 - needs pytest's environment

    with cluster(Path(find_binary()), folder) as nodes:
        for node in nodes.nodes:
            os.sched_setaffinity(int(node.info("server")["process_id"]), {core})
        yield nodes.url
