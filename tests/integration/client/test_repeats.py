"""When a call is repeated, after which pause, and when no more: both clients against a server that does as told."""

from __future__ import annotations

import pytest

from skewless.client import Limits, Retries
from skewless.contract.errors import BusyError, DeadlineError, RequestError, SkewlessError, StoreError
from tests.integration.client.conftest import Connect
from tests.integration.client.scripted import BROKEN, GOOD, SILENT, SLOW, answer, nobody, refusal, scripted

ROW = {"card_id": 7}
EVENTS = [{"id": "a", "x": 1}, {"id": "b", "x": 2}]
TAKEN = answer(202, {"accepted_for": 2, "source": "s"})
AWAY = refusal(503, "store", "Retry-After: 1")
BUSY = refusal(503, "busy", "Retry-After: 1")
LIMITED = refusal(429, "request", "Retry-After: 2")


@pytest.mark.parametrize(
    ("bad", "pauses"),
    [
        (AWAY, [1.025]),
        (BUSY, [1.025]),
        (LIMITED, [2.025]),
        (refusal(503, "store"), [0.025]),
        (refusal(503, "store", "Retry-After: 3600"), [5.025]),
        (refusal(503, "store", "Retry-After: Fri, 31 Dec 2027 23:59:59 GMT"), [0.025]),
        (BROKEN, [0.025]),
        (b"what is this?\r\n\r\n", [0.025]),
    ],
)
def test_a_prediction_is_repeated(connect: Connect, bad: bytes, pauses: list[float]) -> None:
    with scripted(bad, GOOD) as server:
        face = connect(server.url)
        assert face.ask("predict", [ROW]).scores == [0.25]
        assert face.time.slept == pytest.approx(pauses)
        assert [one.body for one in server.asked] == [{"rows": [ROW]}] * 2


def test_pauses_grow_and_attempts_end(connect: Connect) -> None:
    with scripted(BROKEN) as server:
        face = connect(server.url, retries=Retries(attempts=5, base_s=0.1, cap_s=0.3))
        with pytest.raises(StoreError, match=f"server at {server.url}: did not reply: .*onnect"):
            face.ask("predict", [ROW])
        assert face.time.slept == pytest.approx([0.05, 0.1, 0.15, 0.15])
        assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "request", RequestError),
        (404, "request", RequestError),
        (500, "error", StoreError),
        (502, "error", StoreError),
        (504, "deadline", DeadlineError),
    ],
)
def test_other_errors_are_the_servers_own_and_come_at_once(
    connect: Connect, status: int, kind: str, error: type[SkewlessError]
) -> None:
    with scripted(refusal(status, kind)) as server:
        face = connect(server.url)
        with pytest.raises(error) as caught:
            face.ask("predict", [ROW])
        parts = (caught.value.thing, caught.value.problem, caught.value.value, caught.value.fix)
        assert parts == ("the thing", "is wrong", 7, "mend it")
        assert (len(server.asked), face.time.slept) == (1, [])


def test_the_last_error_of_the_server_is_raised_when_repeats_end(connect: Connect) -> None:
    with scripted(AWAY, BUSY) as server:
        with pytest.raises(BusyError, match="the thing: is wrong"):
            connect(server.url).ask("predict", [ROW])
        assert len(server.asked) == 3


def test_a_budget_ends_repeats(connect: Connect) -> None:
    """Ten in reserve and a tenth of what is called: 100 calls to a server that is away cost it 120 requests."""
    with scripted(AWAY) as server:
        face = connect(server.url)
        for _ in range(100):
            with pytest.raises(StoreError):
                face.ask("predict", [ROW])
        assert len(server.asked) == 120


def test_calls_side_by_side_share_the_budget(connect: Connect) -> None:
    with scripted(AWAY) as server:
        face = connect(server.url, limits=Limits(total_s=1_000))  # all sleep on one clock
        errors = face.ask_at_once(60, "predict", [ROW])
        assert [type(error) for error in errors] == [StoreError] * 60
        assert len(server.asked) == 60 + 10 + 6


def test_a_call_that_has_no_time_left_ends_before_the_pause(connect: Connect) -> None:
    with scripted(AWAY) as server:
        face = connect(server.url, limits=Limits(total_s=2.0))
        with pytest.raises(StoreError, match="the thing: is wrong"):
            face.ask("predict", [ROW])
        assert len(server.asked) == 2
        assert face.time.slept == pytest.approx([1.025])


def test_a_slow_server_is_left_after_the_time_for_an_attempt(connect: Connect) -> None:
    with scripted(SILENT, GOOD) as server:
        face = connect(server.url, limits=Limits(attempt_s=0.5))
        assert face.ask("predict", [ROW]).scores == [0.25]
        assert [one.connection for one in server.asked] == [1, 2]


def test_time_that_is_over_is_said(connect: Connect) -> None:
    with scripted(SILENT) as server:
        face = connect(server.url, limits=Limits(attempt_s=0.05), retries=Retries(attempts=2))
        with pytest.raises(DeadlineError, match="did not reply in time"):
            face.ask("predict", [ROW])
        assert len(server.asked) == 2


def test_a_reply_that_comes_byte_by_byte_gets_no_more_time(connect: Connect) -> None:
    with scripted(SLOW) as server:
        face = connect(server.url, limits=Limits(attempt_s=0.3), retries=Retries(attempts=1))
        with pytest.raises(DeadlineError, match="did not reply in time"):
            face.ask("predict", [ROW])


def test_the_server_is_told_its_share_of_the_callers_time(connect: Connect) -> None:
    with scripted(AWAY, GOOD) as server:
        face = connect(server.url)
        face.ask("predict", [ROW], timeout_s=2.0)
        told = [one.body["timeout_us"] for one in server.asked]
        assert told == pytest.approx([1_800_000, 0.9 * (2.0 - 1.025) * 1e6], abs=1)


@pytest.mark.parametrize("bad", [BROKEN, AWAY])
def test_events_without_ids_are_not_sent_twice(connect: Connect, bad: bytes) -> None:
    with scripted(bad, TAKEN) as server:
        face = connect(server.url)
        with pytest.raises(StoreError):
            face.ask("send_events", "s", EVENTS)
        assert len(server.asked) == 1
        server.steps.insert(0, bad)
        with pytest.raises(StoreError):
            face.ask("send_events", "s", [*EVENTS, {"x": 3}], event_id="id")
        assert len(server.asked) == 2


@pytest.mark.parametrize("bad", [BROKEN, AWAY])
def test_events_with_ids_are(connect: Connect, bad: bytes) -> None:
    with scripted(bad, TAKEN) as server:
        assert connect(server.url).ask("send_events", "s", EVENTS, event_id="id") == 2
        assert [one.body for one in server.asked] == [{"events": EVENTS}] * 2


def test_a_required_log_that_a_server_does_not_confirm_is_an_error(connect: Connect) -> None:
    best_effort, required = (
        answer(202, {"accepted_for": 2, "source": "s", "log": log}) for log in ("best_effort", "required")
    )
    with scripted(TAKEN, best_effort, required) as server:
        face = connect(server.url)
        for _ in range(2):  # the first server is older than the parameter
            with pytest.raises(StoreError):
                face.ask("send_events", "s", EVENTS, log="required")
        assert face.ask("send_events", "s", EVENTS, log="required") == 2


@pytest.mark.parametrize("bad", [BUSY, LIMITED])
def test_events_that_were_not_looked_at_are_sent_again(connect: Connect, bad: bytes) -> None:
    with scripted(bad, TAKEN) as server:
        assert connect(server.url).ask("send_events", "s", EVENTS) == 2
        assert len(server.asked) == 2


def test_the_next_address_is_taken_and_kept(connect: Connect) -> None:
    with scripted(TAKEN) as server:
        face = connect(nobody(), nobody(), server.url, retries=Retries(attempts=1))
        assert [face.ask("send_events", "s", EVENTS) for _ in range(3)] == [2, 2, 2]
        assert sum(face.time.slept) == 0
        assert {one.connection for one in server.asked} == {1}


def test_addresses_do_not_add_to_the_attempts_at_a_server_that_is_there(connect: Connect) -> None:
    with scripted(AWAY) as server:
        with pytest.raises(StoreError, match="the thing: is wrong"):
            connect(server.url, nobody(), retries=Retries(attempts=1)).ask("predict", [ROW])
        assert len(server.asked) == 1


def test_an_address_that_went_away_is_left(connect: Connect) -> None:
    with scripted(GOOD) as second:
        with scripted(GOOD) as first:
            face = connect(first.url, second.url)
            face.ask("predict", [ROW])
        assert face.ask("predict", [ROW]).scores == [0.25]
        assert (len(first.asked), len(second.asked)) == (1, 1)


def test_nobody_is_there(connect: Connect) -> None:
    url = nobody()
    face = connect(url)
    with pytest.raises(StoreError, match=f"server at {url}: did not reply: .*onnect"):
        face.ask("predict", [ROW])
    assert len(face.time.slept) == 2
    assert face.ask("live") is False
    assert not face.ask("ready")
    assert "onnect" in face.ask("ready").reasons["server"]


def test_a_server_that_is_not_ready_says_why_and_is_asked_once(connect: Connect) -> None:
    with scripted(answer(503, {"ready": False, "reasons": {"redis": "is away"}})) as server:
        said = connect(server.url).ask("ready")
        assert (bool(said), said.reasons, len(server.asked)) == (False, {"redis": "is away"}, 1)
