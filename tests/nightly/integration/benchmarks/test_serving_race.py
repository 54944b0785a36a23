"""A race of servers stops at the first wrong answer, and reports what each took for itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.contestant import ContestantError
from benchmarks.cores import cores
from benchmarks.latency import LatencySample
from benchmarks.served import peer_server
from benchmarks.serving_asks import infer_request, infer_scores, predict_request
from benchmarks.serving_race import Contender, cost_row, latency_row, load_row, race_servers, rate_row, refuse_failures
from benchmarks.serving_repo import Matrix

PAIRS = np.array([[1, 2], [3, 4]])


def empty(expected: list[float], name: str = "empty") -> Contender:
    """Return a server whose score is the number of rows."""
    requests = [predict_request(PAIRS[:1]), predict_request(PAIRS)]
    return Contender(
        server=peer_server("empty", name=name, first=requests[0]),
        requests=requests,
        expected=np.array(expected),
        scores=lambda body: json.loads(body)["score"],
    )


@pytest.mark.soak
def test_servers_are_compared_by_rate_latency_and_cost() -> None:
    contenders = [empty([1.0, 2.0], "one"), empty([1.0, 2.0], "other")]
    done = race_servers(contenders, (2,), cores(), rounds=2, load_s=0.1)
    assert [len(reports) for reports in done.reports.values()] == [2, 2]
    rows = [
        rate_row(done, "serving: a", "one", "other", 2, 0.01),
        latency_row(done, "serving: a", "one", "other", 2, "p99"),
        cost_row(done, "serving: a", "one", "other", 2),
        load_row(done, "serving: a", "one", 2),
    ]
    assert [row.unit for row in rows] == ["requests/s", "ms", "us", "%"]
    assert all(row.value > 0 for row in rows)
    assert rows[0].met is True
    assert rows[0].against.startswith("other (")
    assert rows[2].value * rows[0].value < 1.2e6  # a server takes no more than its core


@pytest.mark.soak
def test_another_score_than_the_model_ends_the_race() -> None:
    with pytest.raises(ContestantError, match=r"empty has other scores than the model: 1\.0 apart"):
        race_servers([empty([1.0, 3.0])], (1,), cores(), rounds=1, load_s=0.1)


def test_a_refused_request_ends_the_race() -> None:
    measured = LatencySample(
        latencies=np.ones(5), seconds=1, cpu_seconds=1, failed=2, late=np.empty(0), refusal=b"busy"
    )
    with pytest.raises(ContestantError, match="peer refused 2 requests, answered 5: busy"):
        refuse_failures("peer", measured)


def test_a_tensor_says_every_bit_of_its_numbers() -> None:
    vectors: Matrix = np.array([[0.1 + 0.2, 1e-310, -0.0], [1 / 3, 2.0**60 + 1, 5.0]])
    body = json.loads(infer_request(vectors).partition(b"\r\n\r\n")[2])
    (tensor,) = body["inputs"]
    assert tensor["shape"] == [2, 3]
    assert np.array(tensor["data"]).tobytes() == vectors.tobytes()
    assert infer_scores(json.dumps({"outputs": [tensor]}).encode()).tobytes() == vectors.tobytes()
