"""Whoever waits long for a lock says so: its holder may be stopped, and then only a person can let it go on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from skewless.infra.storage import durable
from skewless.infra.storage.durable import hold_lock
from tests.worlds.waiting import PATIENCE_S, until


def test_a_long_wait_for_a_lock_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_SLOW_LOCK_S", 0.01)
    lock, got = tmp_path / ".lock", threading.Event()

    def second() -> None:
        with hold_lock(lock):
            got.set()

    waiting = threading.Thread(target=second)
    with capture_logs() as logs:
        with hold_lock(lock):
            waiting.start()
            until(lambda: logs)
            assert not got.is_set()
        waiting.join(PATIENCE_S)
    assert got.is_set()
    ((event, path, level),) = [(log["event"], log["path"], log["log_level"]) for log in logs]
    assert (event, path, level) == ("waiting_for_a_lock", str(lock), "warning")


def test_a_lock_that_is_free_soon_is_not_worth_a_line(tmp_path: Path) -> None:
    with capture_logs() as logs, hold_lock(tmp_path / ".lock"):
        pass
    assert logs == []
