"""Costs of a prediction on which ``skewless capacity`` rests: the server's CPU, Redis' CPU and bytes, and the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import redis

from benchmarks.contestant import ContestantError
from benchmarks.http_load import closed_loop
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.served import Running, running
from benchmarks.serving_project import ServedProject, pair_contender, served_project
from benchmarks.serving_race import refuse_failures, seconds
from benchmarks.serving_repo import Shape
from skewless.contract.settings import load_settings
from skewless.infra.platform.storage.project_state import ProjectState

CONCURRENCIES = (1, 16, 64)
_LOAD_S = 10


@dataclass(frozen=True, kw_only=True)
class _Usage:
    """What a server and its Redis have used so far; CPU in seconds."""

    server_s: float
    redis_s: float
    read_bytes: int

    @classmethod
    def of(cls, server: Running, url: str) -> _Usage:
        with redis.Redis.from_url(url) as client:
            info = client.info("all")
        assert isinstance(info, dict)
        return cls(
            server_s=server.cpu_seconds(),
            redis_s=float(info["used_cpu_user"]) + float(info["used_cpu_sys"]),
            read_bytes=int(info["total_net_output_bytes"]),
        )


def run() -> list[Result]:
    """Load one server at several concurrencies, and read what it, its Redis and its log took for each prediction."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        contender = pair_contender(project)
        with running(contender.server, project.where.server) as server:
            contender.check(server)
            results = [row for n in CONCURRENCIES for row in _load(project, server, contender.requests, n)]
        size, rows = _logged(project)
    what = "serving_cost: `/predict`, one pair, 2 views, 40 features, 200 trees"
    log = Result(name=f"{what}, prediction log", value=size / rows, unit="bytes", against="-", ratio=None)
    return [*results, log]


def _load(project: ServedProject, server: Running, requests: Sequence[bytes], concurrency: int) -> Iterator[Result]:
    closed_loop(server.address, requests, concurrency=concurrency, seconds=seconds(1))
    before = _Usage.of(server, project.url)
    measured = closed_loop(server.address, requests, concurrency=concurrency, seconds=seconds(_LOAD_S))
    after = _Usage.of(server, project.url)
    refuse_failures("skewless", measured)
    n = len(measured.latencies)
    what = f"serving_cost: `/predict`, one pair, 2 views, 40 features, 200 trees, concurrency {concurrency}"
    for name, value, unit in (
        ("CPU of the server a request", (after.server_s - before.server_s) / n * 1e6, "us"),
        ("CPU of Redis a request", (after.redis_s - before.redis_s) / n * 1e6, "us"),
        ("bytes from Redis a request", (after.read_bytes - before.read_bytes) / n, "bytes"),
    ):
        yield Result(name=f"{what}, {name}", value=value, unit=unit, against="-", ratio=None)


def _logged(project: ServedProject) -> tuple[int, int]:
    """Return size and rows of the prediction log, of segments that are not merged yet."""
    state = ProjectState.of(project.repo, load_settings(project.repo))
    rows = state.database.query(
        "SELECT sum(size), sum(last_seq - first_seq + 1) FROM segments WHERE partition = 'predictions'"
    )
    state.database.close()
    if not rows or not rows[0][1]:
        raise ContestantError("the server has not logged its predictions")
    return int(rows[0][0]), int(rows[0][1])
