"""Our server with lignum as a second runtime, and without: one pair of entities per request."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.contestant import ContestantError
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import skewless_server
from benchmarks.serving_project import pair_contender, served_project
from benchmarks.serving_race import cost_row, latency_row, race_servers, rate_row, seconds
from benchmarks.serving_repo import Shape
from skewless_lignum.runtime import is_installed

ALONE = "the library alone"
SECONDS = ("lignum", "lignum-compiled")
CONCURRENCIES = (1, 16, 64)
_START_S = 300.0  # the compiler may share its cores with other work


def run() -> list[Result]:
    """Race the servers with a model of each library."""
    if not is_installed():
        raise ContestantError("lignum is not installed here: pip install 'skewless[lignum]'")
    return [row for algorithm in ("lightgbm", "xgboost") for row in _race(algorithm)]


def _race(algorithm: str) -> list[Result]:
    trees = scaled(200, least=10)
    with served_project(Shape(n_cards=10_000, n_shops=1_000, algorithm=algorithm, rounds=trees)) as project:
        asked = pair_contender(project)
        contenders = []
        for name, second in ((ALONE, "none"), *((second, second) for second in SECONDS)):
            first = asked.requests[0]
            server = skewless_server(project.repo, project.url, first, name, auth="required", second_runtime=second)
            contenders.append(replace(asked, server=replace(server, start_s=_START_S)))
        done = race_servers(contenders, CONCURRENCIES, project.where, rounds=rounds(3), load_s=seconds(2))
    results = []
    for concurrency in CONCURRENCIES:
        for second in SECONDS:
            what = f"serving_lignum: {algorithm}, {trees} trees, concurrency {concurrency}, {second}"
            results += [
                rate_row(done, what, second, ALONE, concurrency),
                latency_row(done, what, second, ALONE, concurrency, "p99"),
                cost_row(done, what, second, ALONE, concurrency),
            ]
    return results
