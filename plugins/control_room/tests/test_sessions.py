"""How long a session lasts, how many a key has, and how often somebody may try to sign in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import Response

from skewless.contract.errors import AccessError
from skewless.serving.access.caller import Caller
from skewless.serving.access.gate import Access
from skewless_control_room import sessions as module
from skewless_control_room import sign_in
from skewless_control_room.sessions import COOKIE, Sessions
from skewless_control_room.sign_in import FailedAttempts


class Keys:
    """Accepts keys that begin with ``good``."""

    def allow(self, headers: Sequence[tuple[bytes, bytes]], scope: str | None) -> Caller:
        assert scope is None
        key = headers[0][1].removeprefix(b"Bearer ").decode()
        if not key.startswith("good"):
            raise AccessError("API key", "is unknown", fix="send a valid one")
        return Caller("API key", key, scopes=frozenset({"view"}))


class Minutes:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Minutes:
    clock = Minutes()
    for place in (module, sign_in):
        monkeypatch.setattr(place.time, "monotonic", clock.monotonic)
    return clock


def start(sessions: Sessions, key: str) -> Request:
    """Sign in; return a request of that browser."""
    reply = Response()
    sessions.start(key.encode(), reply)
    cookie = reply.headers["set-cookie"].partition(";")[0]
    assert cookie.startswith(COOKIE)
    return Request({"type": "http", "headers": [(b"cookie", cookie.encode())]})


@pytest.fixture
def sessions(clock: Minutes) -> Sessions:
    assert clock.now_s
    return Sessions(cast("Access", Keys()), is_secure=True)


def test_a_session_that_is_used_ends_after_a_day_and_an_unused_one_earlier(sessions: Sessions, clock: Minutes) -> None:
    used, unused = start(sessions, "good"), start(sessions, "good")
    for _ in range(23):
        clock.now_s += 3_600
        assert sessions.viewer(used) is not None
    assert sessions.viewer(unused) is None
    clock.now_s += 3_601
    assert sessions.viewer(used) is None


def test_a_key_ends_only_sessions_of_its_own(sessions: Sessions, clock: Minutes) -> None:
    other = start(sessions, "good other")
    own = []
    for _ in range(30):
        clock.now_s += 1
        own.append(start(sessions, "good"))
    assert [sessions.viewer(request) is not None for request in own] == [False] * 10 + [True] * 20
    assert sessions.viewer(other) is not None


def test_failed_attempts_of_an_address_are_limited(clock: Minutes) -> None:
    attempts = FailedAttempts()
    for _ in range(10):
        assert attempts.wait_s("10.0.0.1") == 0.0
        attempts.count("10.0.0.1")
        clock.now_s += 1
    assert attempts.wait_s("10.0.0.1") == 50.0
    assert attempts.wait_s("10.0.0.2") == 0.0
    clock.now_s += 50
    assert attempts.wait_s("10.0.0.1") == 0.0


def test_many_addresses_take_no_memory_without_end(clock: Minutes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "_MOST_ADDRESSES", 5)
    attempts: Any = FailedAttempts()
    for i in range(100):
        clock.now_s += 1
        attempts.count(f"10.0.0.{i}")
    assert sorted(attempts._failed) == [f"10.0.0.{i}" for i in range(95, 100)]
