"""A server on this machine is known by its heartbeat, and bulk work leaves it the processor."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from skewless.infra.platform.host import processes
from skewless.infra.platform.host.priority import use_idle_time
from skewless.infra.platform.host.processes import (
    SILENT_S,
    Kind,
    ProcessRecord,
    is_served_here,
    read_processes,
    run_behind_servers,
    send_heartbeats,
)
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from tests.servers.postgres import state_of
from tests.worlds.waiting import eventually, until


def add(state: ProjectState, kind: Kind, name: str = "x", **changes: Any) -> None:  # noqa: ANN401 - of any field
    """Write the heartbeat of a process."""
    body = {"kind": kind, "host": socket.gethostname(), "pid": os.getpid(), "started_s": 1.0, "beat_s": time.time()}
    Documents(state.database, "process").put(name, body | {"plan": "", "detail": {}} | changes)


@pytest.mark.parametrize(
    ("kind", "changes", "served"),
    [
        ("server", {}, True),
        ("server", {"host": "elsewhere"}, False),
        ("server", {"beat_s": time.time() - 2 * SILENT_S}, False),
        ("stream", {}, False),
        ("scheduler", {}, False),
    ],
)
def test_only_a_server_that_lives_here_counts(
    tmp_path: Path, kind: Kind, changes: dict[str, Any], *, served: bool
) -> None:
    assert not is_served_here(ProjectState(tmp_path))
    add(ProjectState(tmp_path), kind, **changes)
    assert is_served_here(ProjectState(tmp_path)) is served


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has idle time")
def test_work_beside_a_server_takes_idle_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "use_idle_time", use_idle_time)  # other tests have no idle core to wait for

    def policy() -> int:
        return os.sched_getscheduler(0)

    before = policy()
    assert run_behind_servers(ProjectState(tmp_path), policy) == before
    add(ProjectState(tmp_path), "server")
    assert run_behind_servers(ProjectState(tmp_path), policy) == os.SCHED_IDLE
    assert policy() == before


def test_a_process_is_listed_until_it_ends(project_database: Database) -> None:
    state = state_of(project_database)
    numbers = iter(range(1_000))
    with send_heartbeats(ProcessRecord(state, "scheduler"), lambda: "abc", lambda: {"number": next(numbers)}):
        until(lambda: any(item.detail["number"] > 0 for item in read_processes(state)))
        (item,) = read_processes(state)
        assert (item.kind, item.pid, item.plan, item.is_silent(time.time())) == ("scheduler", os.getpid(), "abc", False)
    assert read_processes(state) == []


def test_a_killed_process_of_this_machine_is_silent_at_once(tmp_path: Path) -> None:
    state, dead = ProjectState(tmp_path), 2**22 + 1  # above the largest pid
    record = ProcessRecord(state, "server")
    record.send_heartbeat("abc", {})
    ((name, body),) = eventually(lambda: list(Documents(state.database, "process").list_all().items()))
    Documents(state.database, "process").put(f"{name}-killed", body | {"pid": dead})
    # Another container with the name of our host: its process ids are not ours.
    other = name.replace(name.split("-")[-2], "0a0a0a0a")
    Documents(state.database, "process").put(other, body | {"pid": dead + 1})
    assert {item.pid: item.is_silent(item.beat_s) for item in read_processes(state)} == {
        os.getpid(): False,
        dead: True,
        dead + 1: False,
    }
    record.close()


def test_a_machine_whose_clock_is_slow_is_not_silent(
    project_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, now_s = state_of(project_database), time.time()
    monkeypatch.setattr(time, "time", lambda: now_s - 60)
    record = ProcessRecord(state, "stream")
    record.send_heartbeat("abc", {})
    (item,) = eventually(lambda: read_processes(state))
    assert not item.is_silent(state.database.now_us() / 1e6)
    record.close()


def test_dead_processes_of_this_machine_and_old_ones_are_swept(tmp_path: Path) -> None:
    state, here = ProjectState(tmp_path), socket.gethostname()
    dead = 2**22 + 1  # above the largest pid of Linux
    add(state, "server", "dead", pid=dead)
    add(state, "server", "lives")
    add(state, "stream", "another kind", pid=dead)
    add(state, "server", "another host", pid=dead, host=f"{here}-1")
    add(state, "stream", "old", beat_s=time.time() - 90_000)
    Documents(state.database, "process").put("of another release", {"kind": "server"})
    record = ProcessRecord(state, "server")
    record.send_heartbeat("abc", {})
    until(lambda: len(read_processes(state)) == 4)
    record.close()
    names = Documents(state.database, "process").list_all().keys()
    assert names == {"lives", "another kind", "another host", "of another release"}


def test_a_slow_database_holds_nobody_up_and_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = ProjectState(tmp_path)
    record = ProcessRecord(state, "server")
    record.send_heartbeat("first", {})
    until(lambda: read_processes(state))
    monkeypatch.setattr(state.database, "_busy_s", 0.1)
    state.database.close()
    with capture_logs() as logs, state.database.transaction():
        for _ in range(30):
            began = time.monotonic()
            record.send_heartbeat("second", {})
            assert time.monotonic() - began < 0.1
            time.sleep(0.02)
        assert read_processes(state)[0].plan == "first"
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["heartbeat_not_written"]
    record.send_heartbeat("third", {})
    until(lambda: read_processes(state)[0].plan != "first")
    record.close()
    assert read_processes(state) == []


def test_a_process_that_never_worked_creates_no_database(tmp_path: Path) -> None:
    ProcessRecord(ProjectState(tmp_path), "server").close()
    assert not list(tmp_path.iterdir())
