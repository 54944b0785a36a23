"""Questions to places that may never answer, so that a page does not wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from skewless.contract.errors import StoreError

T = TypeVar("T")


class Inquiry(Generic[T]):
    """A question to a place, asked in a thread of its own; the pages wait for it only briefly. Threads may share it.

    A server behind a broken network refuses nothing: a connection to it takes its whole timeout, up to half a minute.

    Args:
        thing: the place, in the error.
        wait_s: how long a page waits.
    """

    def __init__(self, thing: str, wait_s: float) -> None:
        self._thing, self._wait_s = thing, wait_s
        self._lock = threading.Lock()
        self._pending: Future[T] | None = None

    def ask(self, read: Callable[[], T]) -> T:
        """Return what a function returns; while an earlier one runs, the result is that one's.

        Raises:
            StoreError: it has not returned in time. It continues, and no other begins before it ends.
        """
        with self._lock:
            if self._pending is None or self._pending.done():
                self._pending = Future()
                # A daemon: the process must not wait for it at its end.
                threading.Thread(target=_answer, args=(self._pending, read), name="inquiry", daemon=True).start()
            pending = self._pending
        try:
            return pending.result(self._wait_s)
        except TimeoutError as error:
            if pending.done():
                raise  # the function's own
            problem = f"has not answered within {self._wait_s:g} s"
            raise StoreError(self._thing, problem, fix="run `skewless doctor --deep`") from error


def _answer(pending: Future[T], read: Callable[[], T]) -> None:
    try:
        pending.set_result(read())
    except BaseException as error:
        pending.set_exception(error)
        if not isinstance(error, Exception):
            raise
