"""Room for requests: all of it while the loop keeps up, less while it does not, and all of it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from skewless.contract.errors import BusyError
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission

HELD_UP_S = 0.03  # far over what is late


def run(steps: Callable[[Admission], Awaitable[None]], requests: int = 512, rows: int = 1_000_000) -> Metrics:
    metrics = Metrics()

    async def main() -> None:
        await steps(Admission(requests=requests, rows=rows, metrics=metrics))

    asyncio.run(asyncio.wait_for(main(), 60))
    return metrics


def room(admission: Admission) -> int:
    """Return how many requests are taken, and let go of them."""
    taken = 0
    while True:
        try:
            admission.admit(1)
        except BusyError:
            break
        taken += 1
    for _ in range(taken):
        admission.release(1)
    return taken


def free(admission: Admission) -> int:
    """Return how many requests would be taken; unlike ``room``, none counts as completed."""
    return max(admission._limit - admission.in_flight, 0)


def hold_up(
    monkeypatch: pytest.MonkeyPatch, seconds: float = HELD_UP_S, cpu: float = 0.0, since: float = 0.0
) -> list[float]:
    """Let each check come so late, whatever else this machine does; return when the clock was read.

    Args:
        cpu: share of a core that the process takes.
        since: what the clock shows at first.
    """
    looks, step = [since], seconds

    def now() -> float:
        looks.append(looks[-1] + step)
        return looks[-1]

    clock = SimpleNamespace(perf_counter=now, process_time=lambda: looks[-1] * cpu)
    monkeypatch.setattr("skewless.serving.prediction.admission.time", clock)
    return looks


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("requests", [1, 3, 64, 512])
def test_there_is_room_for_so_many(requests: int) -> None:
    async def steps(admission: Admission) -> None:
        for _ in range(3):
            assert room(admission) == requests
        for n in range(requests):
            assert not admission.is_full
            admission.admit(1)
            assert admission.in_flight == n + 1
        assert admission.is_full
        with pytest.raises(BusyError, match="has reached its limit of requests in flight"):
            admission.admit(1)
        admission.release(1)
        admission.admit(1)

    metrics = run(steps, requests)
    assert b'skewless_refused_requests_total{reason="overload"} 4' in metrics.render()


def test_rows_count_too_but_for_a_request_by_itself() -> None:
    async def steps(admission: Admission) -> None:
        admission.admit(150)
        with pytest.raises(BusyError):
            admission.admit(1)
        admission.release(150)
        admission.admit(60)
        admission.admit(40)
        with pytest.raises(BusyError):
            admission.admit(1)
        admission.release(40)
        admission.admit(1)
        assert admission.in_flight == 2

    run(steps, rows=100)


def test_a_loop_that_does_not_keep_up_gets_less_and_less_but_never_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    hold_up(monkeypatch)

    async def steps(admission: Admission) -> None:
        admission.admit(1)
        found = [room(admission)]
        while found[-1] > 16 - 1:  # one is under way
            await asyncio.sleep(0.006)
            found.append(free(admission))
        await asyncio.sleep(0.1)
        assert found == sorted(found, reverse=True)
        assert (found[0], len(set(found)) > 3, free(admission)) == (511, True, 16 - 1)

    run(steps)


@pytest.mark.parametrize(("seconds", "cpu"), [(HELD_UP_S, 0.0), (0.005, 0.9)])
def test_an_overloaded_server_admits_the_requests_that_it_completes_in_20_ms(
    monkeypatch: pytest.MonkeyPatch, seconds: float, cpu: float
) -> None:
    """A full core means overload even if the event loop is on time: a thread scores."""
    looks = hold_up(monkeypatch, seconds, cpu)

    async def steps(admission: Admission) -> None:
        admission.admit(1)
        for _ in range(60):
            for _ in range(int(5_000 * seconds)):  # 5,000 a second
                admission.admit(1)
                admission.release(1)
            seen = len(looks)
            await until(lambda: len(looks) > seen)  # noqa: B023 - awaited here
        assert admission.is_overloaded
        assert 90 <= free(admission) + 1 <= 110

    run(steps)


def test_a_server_that_waits_for_its_store_keeps_all_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = hold_up(monkeypatch, 0.005, 0.7)

    async def steps(admission: Admission) -> None:
        admission.admit(1)
        await until(lambda: len(looks) > 20)
        assert (admission.is_overloaded, free(admission)) == (False, 511)

    run(steps)


def test_little_room_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = hold_up(monkeypatch)

    async def steps(admission: Admission) -> None:
        admission.admit(1)
        await until(lambda: len(looks) > 10)
        assert room(admission) == 9

    run(steps, requests=10)


def test_a_loop_that_keeps_up_again_gets_all_the_room_back_even_with_nothing_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = hold_up(monkeypatch)

    async def steps(admission: Admission) -> None:
        admission.admit(1)
        await until(lambda: admission.is_overloaded)
        admission.release(1)
        assert room(admission) < 512
        hold_up(monkeypatch, 0.001, since=looks[-1])
        await until(lambda: room(admission) == 512)

    run(steps)
