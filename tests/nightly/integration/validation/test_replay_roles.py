"""Replay of a rollout: what champion, challenger and shadow said is all proven."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import duckdb

from skewless.contract.traffic import TrafficPolicy
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.routing import MergedSlices, Routing, ScoringRequest
from skewless.training.train import train
from tests.worlds.trained import MODEL, Sandbox, ask


def test_every_role_of_a_rollout_is_proven(place: Sandbox) -> None:
    policy = TrafficPolicy(
        number=3, phase="canary", champion="000001", challenger="000002", share=0.5, shadows=("000003",)
    )
    spec, dataset = place.project.applied.model(MODEL), place.project.training_set(MODEL)
    for rounds in (7, 3):
        train(dataset, replace(spec, rounds=rounds), place.project.store, threads=1, now_us=place.now_us())
    routing = Routing(policy, {version: place.load(version) for version in ("000001", "000002", "000003")}, Metrics())
    asyncio.run(_routed(place, routing, 60))
    report = place.project.replay()
    assert (report.ok, report.compared) == (True, 120)
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT role, version, policy, count(*), count(DISTINCT id) FROM read_parquet(?) GROUP BY ALL ORDER BY ALL",
            [[str(path) for path in place.log_files()]],
        ).fetchall()
    assert [row[:3] for row in found] == [
        ("challenger", "000002", 3),
        ("champion", "000001", 3),
        ("shadow", "000003", 3),
    ]
    assert found[0][3] + found[1][3] == found[2][3] == found[2][4] == 60


async def _routed(place: Sandbox, routing: Routing, n: int) -> None:
    reader, log = RedisReader(place.project.redis_url), place.log()
    predictor = Predictor(online=reader, clock=place.project.clock, log=log)
    rows = ask(n)
    question = ScoringRequest(
        model=place.model, n=n, rows=rows, columns=place.model.parser.parse_rows(rows), routing=routing
    )
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    predictor.submit(question, told.set_result)
    assert isinstance(await told, MergedSlices)
    await predictor.close()
    log.close()
    await reader.close()
