"""XGBoost, whose call costs much however few its rows: batches of what waits against one call a request."""

from __future__ import annotations

from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import peer_server
from benchmarks.serving_asks import infer_request, infer_scores
from benchmarks.serving_project import COMPARED, served_project
from benchmarks.serving_race import Contender, cost_row, latency_row, race_servers, rate_row, seconds
from benchmarks.serving_repo import Shape

OWN, PEER = "skewless", "raw ASGI + `inplace_predict` for each request"
CONCURRENCIES = (1, 16, 64)
TREES = (200, 1_000)
_TARGET, _JUDGED = 5.0, 64


def run() -> list[Result]:
    """Race both servers with a smaller and a larger model."""
    return [row for trees in TREES for row in _race(trees)]


def _race(trees: int) -> list[Result]:
    shape = Shape(n_cards=10_000, n_shops=1_000, algorithm="xgboost", rounds=scaled(trees, least=10))
    with served_project(shape) as project:
        vectors = project.whole_vectors()
        asked = [infer_request(vector[None]) for vector in vectors]
        ours = [project.infer(vector[None]) for vector in vectors]
        expected = project.scores(vectors[:COMPARED])
        peer = peer_server("inplace", str(project.model), name=PEER, first=asked[0])
        contenders = [
            Contender(server=project.server(ours[0]), requests=ours, expected=expected, scores=infer_scores),
            Contender(server=peer, requests=asked, expected=expected, scores=infer_scores),
        ]
        done = race_servers(contenders, CONCURRENCIES, project.where, rounds=rounds(3), load_s=seconds(2))
    results = []
    for concurrency in CONCURRENCIES:
        what = f"serving_xgboost: 40 features in the request, {trees:,} trees, concurrency {concurrency}"
        target = _TARGET if concurrency == _JUDGED else None
        results += [
            rate_row(done, what, OWN, PEER, concurrency, target),
            latency_row(done, what, OWN, PEER, concurrency, "p50"),
            latency_row(done, what, OWN, PEER, concurrency, "p99"),
            cost_row(done, what, OWN, PEER, concurrency),
        ]
    return results
