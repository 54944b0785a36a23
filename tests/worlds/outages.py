"""Outages of database and storage inside this process: calls that fail before or after their effect, or are slow."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal

import pytest

from skewless.contract.errors import StoreError

Fault = Literal["refused", "reply lost", "slow"]
Calls = Mapping[type, Sequence[str]]  # classes, and the names of their methods


class Outage:
    """Counts calls; those from one to another fail, with their effect or without it, or are slow.

    Args:
        first: number of the first call that fails, from 1.
        n: how many fail.
        slow_s: seconds that a slow call takes longer.

    Attributes:
        calls: their number until now.
        spared: a thread whose calls neither count nor fail.
    """

    def __init__(self, first: int, n: int, fault: Fault, slow_s: float = 0.0) -> None:
        self.first, self.last, self.fault = first, first + n, fault
        self.calls = 0
        self.spared: threading.Thread | None = None
        self._slow_s = slow_s
        self._lock = threading.Lock()

    @classmethod
    def draw(cls, draw: random.Random, most: int, *, faults: Sequence[Fault], slow_s: float = 0.0) -> Outage:
        """Return an outage that begins at one of the first calls, up to a number of them."""
        return cls(draw.randrange(1, most), draw.choice((1, 3, 9)), draw.choice(faults), slow_s)

    @property
    def is_over(self) -> bool:
        """Whether no later call fails."""
        return self.calls >= self.last - 1

    def inject(self, patch: pytest.MonkeyPatch, calls: Calls) -> None:
        """Let all calls of methods go through the outage."""
        for kind, names in calls.items():
            for name in names:
                patch.setattr(kind, name, self._wrap(getattr(kind, name)))

    def _begin(self) -> bool:
        """Count a call; return whether its reply gets lost, and raise if it is refused."""
        if threading.current_thread() is self.spared:
            return False
        with self._lock:
            self.calls += 1
            fails = self.first <= self.calls < self.last
        if fails and self.fault == "refused":
            raise StoreError("store", "answered 503", fix="wait")
        if fails and self.fault == "slow":
            time.sleep(self._slow_s)
        return fails and self.fault == "reply lost"

    def _wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*words: Any, **named: Any) -> Any:  # noqa: ANN401 - any method
            is_lost = self._begin()
            answer = method(*words, **named)
            if method.__name__ in {"transaction", "snapshot"}:
                return _around(answer, is_lost=is_lost)
            if is_lost:
                raise _lost()
            return answer

        return call


@contextmanager
def _around(context: Any, *, is_lost: bool) -> Iterator[Any]:  # noqa: ANN401 - any context
    with context as value:
        yield value
    if is_lost:
        raise _lost()


def _lost() -> StoreError:
    return StoreError("store", "lost its reply", fix="wait")
