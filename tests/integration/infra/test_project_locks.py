"""Locks of a project behave alike in SQLite and PostgreSQL, and end with their holder."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage import durable
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from skewless_postgres.database import PostgresDatabase
from tests.servers.postgres import address_of
from tests.worlds.waiting import PATIENCE_S, until

HOLDER = """
import sys, time
from skewless.infra.platform.storage.project_state import open_database
with open_database(sys.argv[1]).hold_lock("x", shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(1_000)
"""


@contextmanager
def in_thread(database: Database, *, shared: bool = False) -> Iterator[threading.Event]:
    """Wait for the lock ``x`` in a thread; yield an event that is set once the thread has had it."""
    got = threading.Event()

    def wait() -> None:
        with database.hold_lock("x", shared=shared):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    yield got
    thread.join(PATIENCE_S)
    assert got.is_set()


@contextmanager
def held_elsewhere(database: Database, kind: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock ``x``."""
    command = [sys.executable, "-c", HOLDER, address_of(database), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_one_process_at_a_time_holds_a_lock(project_database: Database) -> None:
    inside = most = 0

    def count() -> None:
        nonlocal inside, most
        for _ in range(20):
            with project_database.hold_lock("x"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert most == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [pytest.param("alone", "alone", marks=pytest.mark.soak), ("alone", "shared"), ("shared", "alone")],
)
def test_a_lock_excludes_other_processes(project_database: Database, first: str, second: str) -> None:
    with held_elsewhere(project_database, first) as process:
        with project_database.hold_lock("y"):
            pass  # another lock
        Documents(project_database, "verdict").put("x", 1)  # a lock is not a transaction
        with in_thread(project_database, shared=second == "shared") as got:
            assert not got.wait(0.2)
            process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            until(got.is_set)
            assert time.monotonic() - began < 5


def test_shared_holders_hold_a_lock_together(project_database: Database) -> None:
    with (
        held_elsewhere(project_database, "shared"),
        project_database.hold_lock("x", shared=True),
        in_thread(project_database, shared=True) as got,
    ):
        until(got.is_set)


def test_an_exclusive_holder_gets_in_however_many_shared_ones_take_turns(project_database: Database) -> None:
    stop, turns, longest_s = threading.Event(), 0, 0.0

    def take_turns() -> None:
        nonlocal turns
        while not stop.is_set():
            with project_database.hold_lock("x", shared=True):
                turns += 1
                time.sleep(0.02)

    threads = [threading.Thread(target=take_turns) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: turns > 8)
    for _ in range(10):
        began = time.monotonic()
        with project_database.hold_lock("x"):
            longest_s = max(longest_s, time.monotonic() - began)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert longest_s < 5


def test_shared_holders_get_in_however_many_exclusive_ones_take_turns(project_database: Database) -> None:
    stop = threading.Event()

    def take_turns() -> None:
        while not stop.is_set():
            with project_database.hold_lock("x"):
                time.sleep(0.005)

    threads = [threading.Thread(target=take_turns) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        with project_database.hold_lock("x", shared=True):
            pass
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)


def test_an_error_in_the_block_frees_the_lock(project_database: Database) -> None:
    def fail() -> None:
        with project_database.hold_lock("x"):
            raise KeyError("x")

    for _ in range(10):
        with pytest.raises(KeyError):
            fail()


def test_a_long_wait_is_logged_once_and_goes_on(project_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_SLOW_LOCK_S", 0.01)
    with capture_logs() as logs, project_database.hold_lock("x"), project_database.hold_lock("y"):
        pass
    assert logs == []
    with capture_logs() as logs, held_elsewhere(project_database) as process, in_thread(project_database):
        until(lambda: logs)
        process.kill()
    assert [(log["event"], log["log_level"]) for log in logs] == [("waiting_for_a_lock", "warning")]


def test_a_wait_outlasts_the_limit_of_a_transaction(postgres_url: str) -> None:
    database = PostgresDatabase(postgres_url, busy_s=0.1)
    try:
        with database.hold_lock("outlast"):
            thread = threading.Thread(target=lambda: _pass(database, "outlast"))
            thread.start()
            time.sleep(0.5)
            assert thread.is_alive()
        thread.join(PATIENCE_S)
        # Its connection is used again, with the limit.
        assert database.query("SHOW lock_timeout") == [("100ms",)]
    finally:
        database.close()


def _pass(database: Database, name: str) -> None:
    with database.hold_lock(name):
        pass


def test_a_session_that_the_server_ended_has_lost_its_lock_and_ends_its_block_without_an_error(
    postgres_url: str,
) -> None:
    cut, other = PostgresDatabase(postgres_url), PostgresDatabase(postgres_url)
    with cut.hold_lock("cut"):
        began = time.monotonic()
        sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND pid <> ?"
        assert other.query(sql, 0) == [(1,)]
        with other.hold_lock("cut"):  # both believe to have it
            assert time.monotonic() - began < 15
    with cut.hold_lock("cut"):
        assert cut.query("SELECT 1") == [(1,)]
    cut.close()
    other.close()


def test_a_lock_of_a_file_that_cannot_be_created_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("")
    with (
        pytest.raises(StoreError, match="file 'apply%20s': cannot be written"),
        SqliteDatabase(tmp_path / "a.db").hold_lock("apply s"),
    ):
        pass


def test_the_lock_files_are_private_to_their_project(tmp_path: Path) -> None:
    with SqliteDatabase(tmp_path / "p" / "a.db").hold_lock("ids ../../s"):
        assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
            "p/locks/ids%20..%2F..%2Fs.gate",
            "p/locks/ids%20..%2F..%2Fs.lock",
        ]
