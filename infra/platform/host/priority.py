"""Runs background work in threads of low priority, so that it does not delay requests.

The event loop of the same process and the servers on the same machine keep their priority.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from skewless.infra.platform.telemetry.logger import EventLogger

_T = TypeVar("_T")
_PATIENCE_S = 10.0
_log = EventLogger()
_LOW = 10  # a tenth of a busy core


def lower_priority() -> None:
    """Lower the priority of the calling thread, on Linux only: other systems cannot do it for one thread."""
    if sys.platform == "linux":
        thread_id = threading.get_native_id()
        with suppress(OSError):
            # Against POSIX, Linux changes only the one thread with this id, not the process.
            os.setpriority(os.PRIO_PROCESS, thread_id, max(_LOW, os.getpriority(os.PRIO_PROCESS, thread_id)))
            # A usual thread that wakes may take 4 ms from a running thread, whatever its priority is.
            if os.sched_getscheduler(thread_id) == os.SCHED_OTHER:
                os.sched_setscheduler(thread_id, os.SCHED_BATCH, os.sched_param(0))


def use_idle_time() -> None:
    """Run the calling thread only while a core is idle; where that is impossible, lower its priority."""
    lower_priority()
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def run_at_low_priority(work: Callable[[], _T], lower: Callable[[], None] = lower_priority) -> _T:
    """Run work in a thread of lower priority and return its result; threads that it starts inherit the priority.

    The calling thread waits and may be interrupted; then the other thread ends with the process. If that thread has
    mostly waited for a core, it is logged once.

    Args:
        lower: ``lower_priority``, if other threads may wait for locks of this thread; or ``use_idle_time``.
    """
    result = Future[_T]()

    def run() -> None:
        lower()
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            result.set_exception(error)

    thread = threading.Thread(target=run, name="low-priority", daemon=True)
    thread.start()
    if wait([result], _PATIENCE_S).not_done and (waited_s := _queued_s(thread, _PATIENCE_S)) > _PATIENCE_S / 2:
        fix = "wait until other work ends, or run this on another machine"
        _log.warning("waiting_for_a_core", waited_s=round(waited_s, 1), fix=fix)
    return result.result()


def _queued_s(thread: threading.Thread, elapsed_s: float) -> float:
    """Return how long a thread could have run and had no core, seconds; 0 where that is unknown.

    Linux adds a wait when it ends. So a thread that waits now has waited all the time in which it did not run: it may
    hold the interpreter's lock, so nothing here may give that up, as a pause would.
    """
    with suppress(OSError, ValueError, IndexError):
        folder = Path(f"/proc/self/task/{thread.native_id}")
        ran, queued, *_ = (folder / "schedstat").read_text(encoding="ascii").split()
        is_runnable = (folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "R"
        return max(int(queued) / 1e9, elapsed_s - int(ran) / 1e9 if is_runnable else 0.0)
    return 0.0
