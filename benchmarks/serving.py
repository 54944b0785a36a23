"""``POST /predict`` of one pair of entities: ours against an empty endpoint, the bare path, and what users write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.contestant import Race
from benchmarks.programs import run_feast
from benchmarks.repo import LOCAL, feast_redis
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import peer_server
from benchmarks.serving_asks import plain_scores, predict_request
from benchmarks.serving_project import COMPARED, ServedProject, pair_contender, served_project
from benchmarks.serving_race import Contender, cost_row, latency_row, load_row, race_servers, rate_row, seconds
from benchmarks.serving_repo import Shape, write_project
from benchmarks.stored import plan_of
from skewless.contract.keys import KeyCodec

OWN, EMPTY, BARE = "skewless", "an empty FastAPI + pydantic endpoint", "the bare path"
FEAST, FEAST_ONE = "FastAPI + `get_online_features` + `Booster.predict`", "the same, `num_threads=1`"
CONCURRENCIES = (1, 16, 64)
_OVER_EMPTY = {1: 0.8, 16: 2.5, 64: 3.0}
_OVER_BARE = {1: 1.0, 16: 1.1, 64: 1.2}
_USERS = 16


def run() -> list[Result]:
    """Race all servers on one project of 100,000 cards and 10,000 shops."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        theirs = write_project(project.folder / "theirs", shape, feast_redis(project.url) + LOCAL)
        run_feast(theirs, "apply")
        run_feast(theirs, "materialize", "2024-01-01T00:00:00", "2026-01-01T00:00:00")
        contenders = _contenders(project, theirs)
        done = race_servers(contenders, CONCURRENCIES, project.where, rounds=rounds(3), load_s=seconds(2))
    return [row for concurrency in CONCURRENCIES for row in _rows(done, concurrency)]


def _contenders(project: ServedProject, theirs: Path) -> list[Contender]:
    empty, bare = floors(project)
    feast = [str(theirs), str(project.model)]
    return [
        pair_contender(project),
        empty,
        bare,
        *(
            replace(bare, server=peer_server("feast_fastapi", *feast, threads, name=name, first=bare.server.first))
            for name, threads in ((FEAST, "0"), (FEAST_ONE, "1"))
        ),
    ]


def floors(project: ServedProject) -> tuple[Contender, Contender]:
    """Return an empty endpoint and the bare path, asked the same."""
    pairs = project.pairs()
    asked = [predict_request(pair[None]) for pair in pairs]
    expected = project.scores(project.shape.vectors(pairs[:COMPARED]))
    bare = peer_server("bare", *_bare(project), name=BARE, first=asked[0])
    return (
        Contender(server=peer_server("empty", name=EMPTY, first=asked[0]), requests=asked),
        Contender(server=bare, requests=asked, expected=expected, scores=plain_scores),
    )


def _bare(project: ServedProject) -> list[str]:
    """Return the arguments of the bare path: where Redis is, the model, and each view's prefix and width."""
    plan = plan_of(project.repo)
    views = {view.keys[0].name: view for view in plan.views}
    parts = [
        (KeyCodec(plan.project, view).prefix.decode(), str(len(view.features)))
        for view in (views["card_id"], views["shop_id"])
    ]
    return [str(urlsplit(project.url).port), str(project.model), *(word for part in parts for word in part)]


def _rows(done: Race, concurrency: int) -> list[Result]:
    what = f"serving: `/predict`, one pair, 2 views, 40 features, 200 trees, concurrency {concurrency}"
    users = concurrency == _USERS
    return [
        rate_row(done, what, OWN, EMPTY, concurrency, _OVER_EMPTY[concurrency]),
        rate_row(done, what, OWN, BARE, concurrency, _OVER_BARE[concurrency]),
        *(rate_row(done, what, OWN, peer, concurrency, 30 if users else None) for peer in (FEAST, FEAST_ONE)),
        latency_row(done, what, OWN, BARE, concurrency, "p50"),
        *(
            latency_row(done, what, OWN, peer, concurrency, "p99", 1 / 20 if users else None)
            for peer in (FEAST, FEAST_ONE)
        ),
        cost_row(done, what, OWN, BARE, concurrency),
        load_row(done, what, OWN, concurrency),
    ]
