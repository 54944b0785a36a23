"""A thread that gives way has a lower priority than the others, and so has all that it starts."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.host.priority import lower_priority, run_at_low_priority, use_idle_time
from skewless.infra.offline.engine import connect

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
LOW = 10


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


def test_the_threads_of_duckdb_give_way(tmp_path: Path) -> None:
    def threads() -> set[int]:
        return {int(path.name) for path in Path("/proc/self/task").iterdir()}

    before = threads()
    with connect(tmp_path, threads=3):
        found = [priority(thread) for thread in threads() - before]
    assert len(found) >= 2
    assert min(found) >= LOW
