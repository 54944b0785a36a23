"""Threads that give way to those who answer requests: the event loop of their process, and servers beside it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_LOW = 10  # a tenth of a busy core


def give_way() -> None:
    """Lower the priority of the calling thread: on Linux that of one thread can be; elsewhere nothing happens."""
    if sys.platform == "linux":
        own = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, own, max(_LOW, os.getpriority(os.PRIO_PROCESS, own)))


def run_aside(work: Callable[[], _T]) -> _T:
    """Return what work returns, done by a thread that gives way, as do all threads and processes that it starts.

    The calling thread waits, and may be interrupted: then the other one ends with the process.
    """
    done = Future[_T]()

    def run() -> None:
        give_way()
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            done.set_exception(error)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return done.result()


def aside(work: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a function that gives way to servers on this machine, as ``run_aside`` says."""

    @wraps(work)
    def give(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return run_aside(lambda: work(*args, **kwargs))

    return give
