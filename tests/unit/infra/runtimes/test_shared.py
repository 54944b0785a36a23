"""Each batch goes to the faster runtime; where that one fails, the library answers, and nobody notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.runtimes.port import Matrix, Scores, find_leaves
from skewless.infra.runtimes.shared import RuntimeMember, SharedRuntime, Step
from tests.unit.infra.runtimes.standing_in import StandIn
from tests.worlds.clock import SecondsClock
from tests.worlds.waiting import PATIENCE_S, until

FROM = 64


class RuntimePair:
    """A library's runtime and a second one, which gets batches of 64 rows and more."""

    def __init__(self, reopen: Callable[[], StandIn] | None = None) -> None:
        self.clock = SecondsClock(1_000.0)
        self.own = StandIn("own-1")
        self.second = StandIn("second-1", seconds=lambda _: 0.5)
        self.member = RuntimeMember(self.second, self.second.calibration, reopen, clock=self.clock)
        self.shared = SharedRuntime(
            RuntimeMember(self.own, self.own.calibration), [self.member], [Step(rows=1, at=0), Step(rows=FROM, at=1)]
        )

    def ask(self, n: int = FROM) -> None:
        """Score n rows and check every bit."""
        rows = np.random.default_rng(n).normal(size=(n, 2))
        assert self.shared.score(rows).tobytes() == ((rows[:, 0] + rows[:, 1]) * 2).tobytes()

    def counts(self) -> tuple[int, int, int]:
        return self.member.batches, self.member.rows, self.member.failures


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what failed come back at once."""
    monkeypatch.setattr(RuntimeMember, "rest_s", 0.001)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_below_the_step_the_second_is_never_asked() -> None:
    pair = RuntimePair()
    for n in (0, 1, 2, 63, 64, 65, 4_096, 100_000):
        pair.ask(n)
    assert pair.own.asked == [0, 1, 2, 63]
    assert pair.second.asked == [64, 65, 4_096, 100_000]
    assert pair.counts() == (4, 64 + 65 + 4_096 + 100_000, 0)
    own = pair.shared.members[0]
    assert (own.batches, own.rows, own.failures) == (4, 66, 0)


def test_it_is_named_by_all_and_expects_what_the_one_takes_that_gets_the_batch() -> None:
    pair = RuntimePair()
    assert pair.shared.runtime_id == "own-1|second-1"
    assert (pair.shared.n_features, pair.shared.n_outputs) == (2, 1)
    assert [pair.shared.expected_s(n) for n in (1, 63, 64, 8_192)] == [1.0, 1.0, 0.5, 1.0]
    assert [pair.shared.is_inline(n) for n in (0, 63, 64)] == [True, True, False]
    only_second = SharedRuntime(RuntimeMember(pair.own, pair.own.calibration), [pair.member], [Step(rows=1, at=1)])
    assert only_second.runtime_id == "second-1|own-1"


def test_margins_and_contributions_are_the_library_s() -> None:
    pair = RuntimePair()
    pair.second.error = RuntimeError("never asked")
    rows = np.ones((FROM, 2))
    assert pair.shared.margin(rows).tolist() == [2.0] * FROM
    assert pair.shared.contributions(rows).shape == (FROM, 3)
    with pytest.raises(RequestError, match="has no leaf indices"):
        find_leaves(pair.shared, rows)
    assert pair.counts() == (0, 0, 0)


def test_a_failure_is_answered_by_the_library_counted_and_said_once() -> None:
    pair = RuntimePair()
    pair.second.error = MemoryError("out of device memory")
    with capture_logs() as logs:
        for _ in range(5):
            pair.ask()
    assert pair.counts() == (0, 0, 1)
    assert pair.own.asked == [FROM] * 5
    assert [(entry["event"], entry["runtime"], entry["error"]) for entry in logs] == [
        ("runtime_failed", "second-1", "out of device memory")
    ]
    assert logs[0]["not_used_until"] == "30 s are over"
    assert pair.shared.is_inline(FROM)
    assert pair.shared.expected_s(FROM) == 1.0


def test_it_rests_and_is_asked_again() -> None:
    pair = RuntimePair()
    pair.second.error = MemoryError()
    pair.ask()
    pair.second.error = None
    pair.clock.now += 29.9
    pair.ask()
    assert pair.second.asked == [FROM]
    pair.clock.now += 0.1
    pair.ask()
    assert pair.second.asked == [FROM, FROM]
    assert pair.counts() == (1, FROM, 1)


def test_three_in_a_row_are_the_last() -> None:
    pair = RuntimePair()
    pair.second.error = MemoryError("again")
    with capture_logs() as logs:
        for _ in range(6):
            pair.ask()
            pair.clock.now += 1_000
    assert pair.counts() == (0, 0, 3)
    assert [entry["not_used_until"] for entry in logs] == ["30 s are over", "the model is loaded again"]


@pytest.mark.usefixtures("soon")
def test_a_failure_to_open_it_is_counted_under_the_lock(gate: threading.Event) -> None:
    attempts: list[float] = []

    def reopen() -> StandIn:
        gate.wait(PATIENCE_S)
        attempts.append(time.monotonic())
        raise PackageError("runtime", "cannot be opened", fix="none")

    pair = RuntimePair(reopen)
    pair.second.error = MemoryError()
    pair.ask()
    with pair.member._lock:
        gate.set()
        until(lambda: attempts)
        time.sleep(0.05)
        assert (len(attempts), pair.member._consecutive_failures) == (1, 1)
    until(lambda: len(attempts) == 2)
    until(lambda: pair.member._consecutive_failures == 3)


def test_a_success_in_between_begins_the_count_anew() -> None:
    pair = RuntimePair()
    for _ in range(4):
        for error in (MemoryError(), MemoryError(), None):
            pair.second.error = error
            pair.ask()
            pair.clock.now += 30
    assert pair.counts() == (4, 4 * FROM, 8)


def test_a_request_that_no_runtime_takes_is_no_failure() -> None:
    pair = RuntimePair()
    pair.second.error = RequestError("matrix", "has another shape", fix="give another")
    with pytest.raises(RequestError):
        pair.shared.score(np.ones((FROM, 2)))
    assert pair.counts() == (0, 0, 0)
    assert not pair.shared.is_inline(FROM)


def test_calls_that_fail_together_count_as_one_in_a_row(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = RuntimePair()
    inside = threading.Semaphore(0)

    def score(_: Matrix) -> Scores:
        inside.release()
        assert gate.wait(PATIENCE_S)
        raise MemoryError

    monkeypatch.setattr(pair.second, "score", score)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(pair.ask) for _ in range(4)]
        for _ in calls:
            assert inside.acquire(timeout=PATIENCE_S)
        gate.set()
        for call in calls:
            call.result()
    assert pair.counts() == (0, 0, 4)
    pair.clock.now += 30
    assert pair.member.is_ready


@pytest.mark.usefixtures("soon")
def test_what_has_to_be_reopened_is_closed_opened_and_asked_again() -> None:
    fresh = StandIn("second-1")
    pair = RuntimePair(lambda: fresh)
    pair.second.error = MemoryError()
    with capture_logs() as logs:
        pair.ask()
        until(lambda: pair.member.is_ready)
        pair.ask()
        until(lambda: len(logs) == 2)
    assert (pair.second.closed, fresh.asked, fresh.closed) == (1, [FROM], 0)
    assert pair.counts() == (1, FROM, 1)
    assert [entry["event"] for entry in logs] == ["runtime_failed", "runtime_recovered"]
    pair.shared.close()
    assert (pair.own.closed, fresh.closed) == (1, 1)


@pytest.mark.usefixtures("soon")
def test_calls_that_fail_together_open_one_new_runtime(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[StandIn] = []

    def reopen() -> StandIn:
        opened.append(StandIn("second-1"))
        return opened[-1]

    pair = RuntimePair(reopen)
    inside = threading.Semaphore(0)
    late = threading.Event()

    def score(matrix: Matrix) -> Scores:
        inside.release()
        # One call fails only once the new runtime is there: what it says is no news of that one.
        assert (late if len(matrix) > FROM else gate).wait(PATIENCE_S)
        raise MemoryError

    monkeypatch.setattr(pair.second, "score", score)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(pair.ask, n) for n in (FROM, FROM, FROM, FROM + 1)]
        for _ in calls:
            assert inside.acquire(timeout=PATIENCE_S)
        gate.set()
        until(lambda: pair.member.failures == 3 and pair.member.is_ready)
        late.set()
        for call in calls:
            call.result()
    assert pair.member.is_ready
    assert pair.counts() == (0, 0, 4)
    assert len(opened) == 1
    assert pair.member.runtime is opened[0]
    pair.shared.close()
    assert opened[0].closed == 1


@pytest.mark.usefixtures("soon")
def test_what_cannot_be_opened_three_times_is_given_up() -> None:
    tries: list[int] = []

    def reopen() -> StandIn:
        tries.append(1)
        raise PackageError("runtime 'second'", "has other bits after reopening", fix="load the model again")

    pair = RuntimePair(reopen)
    pair.second.error = MemoryError()
    with capture_logs() as logs:
        pair.ask()
        until(lambda: len(logs) == 2)
    pair.ask()
    assert len(tries) == 2
    assert pair.counts() == (0, 0, 1)
    assert "has other bits after reopening" in logs[1]["error"]
    assert logs[1]["not_used_until"] == "the model is loaded again"
    assert pair.shared.is_inline(FROM)


@pytest.mark.usefixtures("soon")
def test_one_that_fails_each_time_it_is_back_is_given_up() -> None:
    opened: list[StandIn] = []

    def reopen() -> StandIn:
        opened.append(StandIn("second-1"))
        opened[-1].error = MemoryError()
        return opened[-1]

    pair = RuntimePair(reopen)
    pair.second.error = MemoryError()
    for n in range(3):
        until(lambda: pair.member.is_ready)
        pair.ask()
        assert pair.member.failures == n + 1
    time.sleep(0.02)
    assert not pair.member.is_ready
    assert len(opened) == 2


def test_closing_while_it_rests_opens_nothing() -> None:
    tries: list[int] = []

    def reopen() -> StandIn:
        tries.append(1)
        return StandIn("second-1")

    pair = RuntimePair(reopen)
    pair.second.error = MemoryError()
    pair.ask()
    pair.shared.close()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "runtime-reopen"])
    assert tries == []
    assert not pair.member.is_ready


@pytest.mark.usefixtures("soon")
def test_closing_while_it_is_opened_closes_the_new_one(gate: threading.Event) -> None:
    fresh = StandIn("second-1")
    opening = threading.Event()

    def reopen() -> StandIn:
        opening.set()
        assert gate.wait(PATIENCE_S)
        return fresh

    pair = RuntimePair(reopen)
    pair.second.error = MemoryError()
    pair.ask()
    assert opening.wait(PATIENCE_S)
    pair.shared.close()
    gate.set()
    until(lambda: fresh.closed == 1)
    assert not pair.member.is_ready
