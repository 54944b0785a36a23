"""Threads that give way to those who answer requests: the event loop of their process, and servers beside it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")
_LOW = 10  # a tenth of a busy core


def give_way() -> None:
    """Lower the priority of the calling thread: on Linux that of one thread can be; elsewhere nothing happens."""
    if sys.platform == "linux":
        own = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, own, max(_LOW, os.getpriority(os.PRIO_PROCESS, own)))


def use_idle_time() -> None:
    """Let the calling thread run only while a core has nothing else to do; where that cannot be, it gives way."""
    give_way()
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def run_aside(work: Callable[[], _T], lower: Callable[[], None] = give_way) -> _T:
    """Return what work returns, done by a thread of lower priority, which all that it starts inherits.

    The calling thread waits, and may be interrupted: then the other one ends with the process.

    Args:
        lower: ``give_way``, where others may wait for what the thread holds; or ``use_idle_time``.
    """
    done = Future[_T]()

    def run() -> None:
        lower()
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            done.set_exception(error)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return done.result()
