"""Long waits for a lock are logged: its holder may be stopped, and only a person can continue it; and durable files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage import durable
from skewless.infra.platform.storage.durable import hold_lock, write_durable
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


def test_an_existing_file_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(StoreError, match="file 'a': cannot be written"):
        write_durable(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_file_that_cannot_be_completed_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left"):
        write_durable(tmp_path / "a", b"new")
    assert not (tmp_path / "a").exists()
