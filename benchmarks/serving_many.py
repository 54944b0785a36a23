"""A hundred pairs in one request: what a row costs then, against a request for one."""

from __future__ import annotations

from benchmarks.contestant import Quantity, Race
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.serving_asks import predict_scores
from benchmarks.serving_project import ServedProject, served_project
from benchmarks.serving_race import Contender, fact, race_servers, seconds
from benchmarks.serving_repo import Shape

ROWS = 100
ONE, MANY = "skewless, 1 row", "skewless, 100 rows"
CONCURRENCIES = (1, 16)
_TARGET = 1 / 4


def run() -> list[Result]:
    """Load the same server with both kinds of requests, in turn."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        contenders = [_contender(project, ONE, 1), _contender(project, MANY, ROWS)]
        done = race_servers(contenders, CONCURRENCIES, project.where, rounds=rounds(3), load_s=seconds(2))
    return [row for concurrency in CONCURRENCIES for row in _rows(done, concurrency)]


def _contender(project: ServedProject, name: str, rows: int) -> Contender:
    pairs = project.shape.pairs(200 * rows).reshape(-1, rows, 2)
    requests = [project.predict(some) for some in pairs]
    compared = pairs[:20]
    expected = project.scores(project.shape.vectors(compared.reshape(-1, 2))).reshape(compared.shape[:2])
    server = project.server(requests[0], name=name)
    return Contender(server=server, requests=requests, expected=expected, scores=predict_scores)


def _rows(done: Race, concurrency: int) -> list[Result]:
    what = f"serving_many: `/predict`, 100 rows, concurrency {concurrency}"
    return [
        _row(done, f"{what}, time a row", lambda report: 1e6 / report.facts[f"{concurrency} rate"], _TARGET),
        _row(done, f"{what}, CPU a row", fact(f"{concurrency} cpu_us"), None),
    ]


def _row(done: Race, what: str, cost: Quantity, target: float | None) -> Result:
    """Return a row that compares what a request costs, in microseconds, divided by its rows."""
    one = done.median(ONE, cost)
    return Result(
        name=what,
        value=done.median(MANY, cost) / ROWS,
        unit="us",
        against=f"1 row a request ({one:.3g} us)",
        ratio=done.ratio(MANY, ONE, cost) / ROWS,
        target=target,
    )
