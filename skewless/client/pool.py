"""Open connections that wait for the next call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from skewless.client.addresses import Address
from skewless.contract.errors import RequestError


class PooledConnection(Protocol):
    """A connection as the pool sees it."""

    def usable(self) -> bool:
        """Say whether it can carry another request."""
        ...

    def close(self) -> None:
        """Close it; closing twice is allowed."""
        ...


C = TypeVar("C", bound=PooledConnection)


class Pool(Generic[C]):
    """Connections between two calls; the one used last goes first, so that those not needed grow old. Thread-safe.

    Args:
        idle_s: how long one may wait, seconds.
        clock: seconds, monotonic.
    """

    def __init__(self, idle_s: float, clock: Callable[[], float]) -> None:
        self._idle_s = idle_s
        self._clock = clock
        self._waiting: dict[Address, list[tuple[float, C]]] = {}
        self._closed = False
        self._lock = threading.Lock()

    def check_open(self) -> None:
        """Refuse to begin a call after the end.

        Raises:
            RequestError: the client was closed.
        """
        if self._closed:
            raise RequestError("client", "is closed", fix="make a new one, or close it later")

    def take(self, address: Address) -> C | None:
        """Return a connection to an address, and close those that have become useless; None: there is none."""
        with self._lock:
            waiting = self._waiting.get(address, [])
            while waiting:
                since, connection = waiting.pop()
                if self._clock() - since < self._idle_s and connection.usable():
                    return connection
                connection.close()
        return None

    def give_back(self, address: Address, connection: C, *, keep: bool) -> None:
        """Keep a connection for the next call, or close it where it cannot carry one."""
        with self._lock:
            if self._closed or not keep:
                connection.close()
                return
            now = self._clock()
            waiting = self._waiting.setdefault(address, [])
            waiting.append((now, connection))
            while now - waiting[0][0] > self._idle_s:
                waiting.pop(0)[1].close()

    def close(self) -> list[C]:
        """Close and return all that wait; what is given from now on is closed at once."""
        with self._lock:
            self._closed = True
            waiting = [connection for some in self._waiting.values() for _, connection in some]
            self._waiting.clear()
        for connection in waiting:
            connection.close()
        return waiting
