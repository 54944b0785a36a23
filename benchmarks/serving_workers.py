"""Requests a second by number of workers, on all cores of the machine, and what each core is spent on."""

from __future__ import annotations

from dataclasses import replace

import redis

from benchmarks.http_load import closed_loop
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.served import running, skewless_server
from benchmarks.serving_project import ServedProject, pair_contender, served_project
from benchmarks.serving_race import Contender, refuse_failures, seconds
from benchmarks.serving_repo import Shape

WORKERS = (1, 2, 3, 4)
_CONCURRENCY = 64
_LOAD_S = 6


def run() -> list[Result]:
    """Load servers of 1 to 4 workers, one after the other; load, Redis and workers share all cores."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        asked = pair_contender(project)
        return [row for workers in WORKERS for row in _load(project, asked, workers)]


def _load(project: ServedProject, asked: Contender, workers: int) -> list[Result]:
    first = asked.requests[0]
    server = skewless_server(project.repo, project.url, first, auth="required", workers=str(workers))
    contender = replace(asked, server=server)
    with redis.Redis.from_url(project.url) as client, running(server, None) as serving:
        contender.check(serving)
        closed_loop(serving.address, asked.requests, concurrency=_CONCURRENCY, seconds=seconds(1))
        before, redis_before = serving.cpu_seconds(), _redis_seconds(client)
        measured = closed_loop(serving.address, asked.requests, concurrency=_CONCURRENCY, seconds=seconds(_LOAD_S))
        used, redis_used = serving.cpu_seconds() - before, _redis_seconds(client) - redis_before
    refuse_failures("skewless", measured)
    what = f"serving_workers: `/predict`, one pair, concurrency {_CONCURRENCY}, {workers} workers"
    cores = (used + redis_used + measured.cpu_seconds) / measured.seconds
    n = len(measured.latencies)

    def row(name: str, value: float, unit: str) -> Result:
        return Result(name=f"{what}, {name}", value=value, unit=unit, against="-", ratio=None)

    return [
        row("rate", measured.rate, "requests/s"),
        row("p99", measured.quantile(0.99) * 1e3, "ms"),
        row("CPU of the server a request", used / n * 1e6, "us"),
        row("CPU of Redis a request", redis_used / n * 1e6, "us"),
        row("CPU of the load a request", measured.cpu_seconds / n * 1e6, "us"),
        row("busy cores: server, Redis and load", cores, "cores"),
    ]


def _redis_seconds(client: redis.Redis) -> float:
    info = client.info("cpu")
    assert isinstance(info, dict)
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
