"""A thread that gives way has a lower priority than the others, and so has all that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.infra.platform.host import priority as module
from skewless.infra.platform.host.priority import lower_priority, run_at_low_priority, use_idle_time
from skewless.infra.reads.offline.engine import connect
from tests.worlds.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
LOW = 10


@pytest.fixture(autouse=True)
def _lower_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOW", LOW)  # other tests have no core for it


def priority(thread: int | None = None) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread or threading.get_native_id())


def test_only_the_thread_itself_gives_way() -> None:
    found: list[int] = []

    def work() -> None:
        lower_priority()
        found.append(priority())

    before = priority()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] >= max(before, LOW)
    assert priority() == before


def test_who_has_a_lower_priority_already_keeps_it() -> None:
    def work() -> int:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW + 5)
        lower_priority()
        return priority()

    assert run_at_low_priority(work) >= LOW + 5


def test_work_aside_gives_way_with_all_that_it_starts_and_returns_as_if_it_did_not() -> None:
    before = priority()
    assert run_at_low_priority(lambda: (priority(), run_at_low_priority(priority))) >= (LOW, LOW)
    assert priority() == before
    with pytest.raises(StoreError, match="planted"):
        run_at_low_priority(lambda: _raise(StoreError("a", "planted", fix="b")))


def _raise(error: Exception) -> None:
    raise error


def test_idle_time_is_inherited_and_gives_way_where_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def policies() -> tuple[int, int]:
        return os.sched_getscheduler(0), run_at_low_priority(lambda: os.sched_getscheduler(0))

    assert run_at_low_priority(policies, use_idle_time) == (os.SCHED_IDLE, os.SCHED_IDLE)
    assert os.sched_getscheduler(0) != os.SCHED_IDLE

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert run_at_low_priority(priority, use_idle_time) >= LOW


def test_a_thread_of_low_priority_interrupts_none_when_it_wakes_and_never_gains_priority() -> None:
    def policy() -> int:
        lower_priority()
        return os.sched_getscheduler(0)

    assert run_at_low_priority(policy) == os.SCHED_BATCH
    assert run_at_low_priority(policy, use_idle_time) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.parametrize("is_free", [True, False])
def test_work_that_gets_no_core_is_logged(monkeypatch: pytest.MonkeyPatch, *, is_free: bool) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.5)
    ended = threading.Event()
    with ExitStack() as stack:
        if not is_free:
            core = str(min(os.sched_getaffinity(0)))
            command = ["taskset", "-c", core, sys.executable, "-c", "while True: pass"]
            busy = stack.enter_context(subprocess.Popen(command))
            stack.callback(busy.kill)
            until(lambda: Path(f"/proc/{busy.pid}/schedstat").read_text(encoding="ascii").split()[0] > "0")

        def work() -> None:
            if is_free:  # it waits, and not for a core
                ended.wait(0.8)
                return
            os.sched_setaffinity(threading.get_native_id(), {int(core)})
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                pass

        with capture_logs() as logs:
            run_at_low_priority(work, use_idle_time)
    assert [line["event"] for line in logs] == ([] if is_free else ["waiting_for_a_core"])
    assert all(line["waited_s"] > 0.25 for line in logs)


def test_the_threads_of_duckdb_give_way(tmp_path: Path) -> None:
    def threads() -> set[int]:
        return {int(path.name) for path in Path("/proc/self/task").iterdir()}

    before = threads()
    with connect(tmp_path, threads=3):
        found = [priority(thread) for thread in threads() - before]
    assert len(found) >= 2
    assert min(found) >= LOW
