"""How long a call may take and when it is repeated; the budget keeps repeats from becoming a flood."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from skewless.contract.errors import DefinitionError

_TOKEN = 1_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a client waits, in seconds.

    Args:
        connect_s: for a connection to be there, TLS included.
        attempt_s: for the reply to one attempt, connecting included.
        total_s: for a call, with every attempt and pause.
        idle_s: how long a connection may lie unused before a new one is opened instead. It is less than the 5 seconds
            after which the server closes such a connection, so that the two do not meet on the way.
        connections: most connections that an ``AsyncClient`` has open; a ``Client`` has one for each thread at work.

    Raises:
        DefinitionError: one of them is not above zero.
    """

    connect_s: float = 2.0
    attempt_s: float = 10.0
    total_s: float = 30.0
    idle_s: float = 4.0
    connections: int = 100

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise DefinitionError(f"limit {name!r}", "is not above zero", value=value, fix="give a positive number")


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often, and after which pause, a call is repeated.

    The pause before repeat k = 0, 1, ... is drawn evenly from ``[0, min(cap_s, base_s * 2**k))`` ("full jitter"), so
    that clients which failed together do not come back together. What a server asks for in ``Retry-After`` is added.

    Args:
        attempts: most attempts of one call; beyond them, an address that was not tried yet is, if nobody was there.
        base_s: bound of the first pause, seconds.
        cap_s: greatest bound of a pause, seconds.
        retry_after_cap_s: most that is waited because a server asks for it, seconds.
        deposit: what a call adds to the budget; a repeat takes 1 from it. A tenth: in the long run the server gets at
            most a tenth more than was called.
        reserve: what the budget holds in the beginning.
        most: what the budget holds at most.

    Raises:
        DefinitionError: a number is negative, or no attempt is left.
    """

    attempts: int = 3
    base_s: float = 0.05
    cap_s: float = 1.0
    retry_after_cap_s: float = 5.0
    deposit: float = 0.1
    reserve: float = 10.0
    most: float = 100.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise DefinitionError("retries: 'attempts'", "is less than 1", value=self.attempts, fix="give 1 or more")
        for name, value in vars(self).items():
            if not value >= 0:
                raise DefinitionError(f"retries: {name!r}", "is negative", value=value, fix="give 0 or more")

    def pause(self, repeat: int, chance: float, retry_after: float) -> float:
        """Return how long to wait before a repeat, in seconds.

        Args:
            repeat: 0 for the first one.
            chance: even in ``[0, 1)``.
            retry_after: what the server asks for, seconds; 0: nothing.

        >>> Retries(base_s=0.1, cap_s=1.0).pause(2, 0.5, 0)
        0.2
        >>> Retries().pause(0, 0.0, 3600)
        5.0
        """
        return min(self.retry_after_cap_s, retry_after) + chance * min(self.cap_s, self.base_s * 2.0**repeat)


class Budget:
    """A token bucket over all calls of a client: calls fill it, repeats empty it. For several threads.

    After Finagle's ``RetryBudget`` and gRPC's retry throttling: while a server is well, single failures are repeated;
    when most calls fail, repeats end, and the server that comes back meets little more than its usual load.
    """

    def __init__(self, retries: Retries) -> None:
        # In thousandths: a tenth has no exact float, and ten of them shall be one.
        self._most, self._deposit = _thousandths(retries.most), _thousandths(retries.deposit)
        self._tokens = min(_thousandths(retries.reserve), self._most)
        self._lock = threading.Lock()

    @property
    def tokens(self) -> float:
        """Return what is left."""
        return self._tokens / _TOKEN

    def deposit(self) -> None:
        """Count a call."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._deposit)

    def withdraw(self) -> bool:
        """Take the price of one repeat; return whether there was enough."""
        with self._lock:
            if self._tokens < _TOKEN:
                return False
            self._tokens -= _TOKEN
            return True


def _thousandths(tokens: float) -> int:
    return round(tokens * _TOKEN)
