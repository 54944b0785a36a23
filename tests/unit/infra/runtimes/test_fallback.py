"""Where the chosen runtime fails, the library answers, and nobody notices."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import RequestError
from skewless.infra.models.runtimes.fallback import FallbackRuntime
from skewless.infra.models.runtimes.port import Matrix, Scores, find_leaves
from tests.unit.infra.runtimes.standing_in import StandIn
from tests.worlds.clock import SecondsClock
from tests.worlds.waiting import PATIENCE_S

N = 64


class RuntimePair:
    """A chosen runtime and the library's own."""

    def __init__(self) -> None:
        self.clock = SecondsClock(1_000.0)
        self.own, self.chosen = StandIn("own-1"), StandIn("chosen-1")
        self.runtime = FallbackRuntime(self.chosen, self.own, self.clock)

    def ask(self, n: int = N) -> None:
        """Score n rows and check every bit."""
        rows = np.random.default_rng(n).normal(size=(n, 2))
        assert self.runtime.score(rows).tobytes() == ((rows[:, 0] + rows[:, 1]) * 2).tobytes()

    def calls(self) -> tuple[int, int]:
        """Return how often each scored."""
        return len(self.chosen.asked), len(self.own.asked)


def test_the_chosen_one_gets_all_batches() -> None:
    pair = RuntimePair()
    for n in (0, 1, 63, 4_096):
        pair.ask(n)
    assert (pair.chosen.asked, pair.own.asked) == ([0, 1, 63, 4_096], [])
    assert (pair.runtime.runtime_id, pair.runtime.failures) == ("chosen-1|own-1", 0)
    assert (pair.runtime.n_features, pair.runtime.n_outputs) == (2, 1)


def test_margins_and_contributions_are_the_library_s() -> None:
    pair = RuntimePair()
    pair.chosen.error = RuntimeError("never asked")
    rows = np.ones((N, 2))
    assert pair.runtime.margin(rows).tolist() == [2.0] * N
    assert pair.runtime.contributions(rows).shape == (N, 3)
    with pytest.raises(RequestError, match="has no leaf indices"):
        find_leaves(pair.runtime, rows)
    assert pair.runtime.failures == 0


def test_a_failure_is_answered_by_the_library_counted_and_said_once() -> None:
    pair = RuntimePair()
    pair.chosen.error = MemoryError("out of device memory")
    with capture_logs() as logs:
        for _ in range(5):
            pair.ask()
    assert pair.calls() == (1, 5)
    assert pair.runtime.failures == 1
    assert [(entry["event"], entry["runtime"], entry["error"]) for entry in logs] == [
        ("runtime_failed", "chosen-1", "out of device memory")
    ]
    assert logs[0]["not_used_until"] == "30 s are over"


def test_it_rests_and_is_asked_again() -> None:
    pair = RuntimePair()
    pair.chosen.error = MemoryError()
    with capture_logs() as logs:
        pair.ask()
        pair.chosen.error = None
        pair.clock.now += 29.9
        pair.ask()
        assert pair.calls() == (1, 2)
        pair.clock.now += 0.1
        pair.ask()
        pair.ask()
    assert pair.calls() == (3, 2)
    assert [entry["event"] for entry in logs] == ["runtime_failed", "runtime_recovered"]


def test_three_in_a_row_are_the_last() -> None:
    pair = RuntimePair()
    pair.chosen.error = MemoryError("again")
    with capture_logs() as logs:
        for _ in range(6):
            pair.ask()
            pair.clock.now += 1_000
    assert pair.runtime.failures == 3
    assert [entry["not_used_until"] for entry in logs] == ["30 s are over", "the model is loaded again"]


def test_a_success_in_between_begins_the_count_anew() -> None:
    pair = RuntimePair()
    for _ in range(4):
        for error in (MemoryError(), MemoryError(), None):
            pair.chosen.error = error
            pair.ask()
            pair.clock.now += 30
    assert (pair.runtime.failures, pair.runtime.is_ready) == (8, True)


def test_a_request_that_no_runtime_takes_is_no_failure() -> None:
    pair = RuntimePair()
    pair.chosen.error = RequestError("matrix", "has another shape", fix="give another")
    with pytest.raises(RequestError):
        pair.runtime.score(np.ones((N, 2)))
    assert (pair.runtime.failures, pair.runtime.is_ready) == (0, True)


def test_calls_that_fail_together_count_as_one_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = RuntimePair()
    inside, gate = threading.Semaphore(0), threading.Event()

    def score(_: Matrix) -> Scores:
        inside.release()
        assert gate.wait(PATIENCE_S)
        raise MemoryError

    monkeypatch.setattr(pair.chosen, "score", score)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(pair.ask) for _ in range(4)]
        for _ in calls:
            assert inside.acquire(timeout=PATIENCE_S)
        gate.set()
        for call in calls:
            call.result()
    assert pair.runtime.failures == 4
    pair.clock.now += 30
    assert pair.runtime.is_ready


def test_a_call_that_began_before_a_failure_is_no_sign_of_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = RuntimePair()
    inside, gate, real = threading.Event(), threading.Event(), pair.chosen.score

    def score(matrix: Matrix) -> Scores:
        inside.set()
        assert gate.wait(PATIENCE_S)
        return real(matrix)

    monkeypatch.setattr(pair.chosen, "score", score)
    with ThreadPoolExecutor(1) as pool, capture_logs() as logs:
        early = pool.submit(pair.ask)
        assert inside.wait(PATIENCE_S)
        monkeypatch.undo()
        pair.chosen.error = MemoryError()
        pair.ask()
        pair.chosen.error = None
        gate.set()
        early.result()
    assert [entry["event"] for entry in logs] == ["runtime_failed"]
    assert not pair.runtime.is_ready


def test_closing_frees_both() -> None:
    pair = RuntimePair()
    pair.runtime.close()
    assert (pair.chosen.closed, pair.own.closed) == (1, 1)
