"""A question to a place that does not answer is waited for briefly, and asked once."""

from __future__ import annotations

import threading

import pytest

from skewless.contract.errors import PlaceError, StoreError
from skewless_control_room.inquiry import Inquiry
from tests.worlds.waiting import until


def test_an_answer_is_returned_and_an_error_raised() -> None:
    inquiry: Inquiry[int] = Inquiry("store", 10.0)
    assert [inquiry.ask(lambda: 1), inquiry.ask(lambda: 2)] == [1, 2]

    def fail(error: Exception) -> int:
        raise error

    with pytest.raises(PlaceError):
        inquiry.ask(lambda: fail(PlaceError("port", "is in use", fix="wait")))
    with pytest.raises(TimeoutError, match="its own"):
        inquiry.ask(lambda: fail(TimeoutError("its own")))


def test_a_silent_place_is_asked_once_until_it_answers() -> None:
    inquiry: Inquiry[int] = Inquiry("store", 0.01)
    calls, gate = list[int](), threading.Event()

    def wait() -> int:
        calls.append(1)
        gate.wait(30)
        return len(calls)

    for _ in range(3):
        with pytest.raises(StoreError, match="has not answered within"):
            inquiry.ask(wait)
    assert len(calls) == 1
    gate.set()
    until(lambda: inquiry._pending is not None and inquiry._pending.done())
    assert inquiry.ask(lambda: 5) == 5
