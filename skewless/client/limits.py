"""Time limits of a call, rules for retries, and a budget that prevents retry storms."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from skewless.contract.errors import DefinitionError

_TOKEN = 1_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Time limits of a client, in seconds.

    Args:
        connect_s: for connecting, including TLS.
        attempt_s: for the reply to one attempt, including connecting.
        total_s: for a call, with all attempts and pauses.
        idle_s: maximum idle time of a connection; after it, a new one is opened. It is less than the 5 seconds after
            which common servers close idle connections, so that a request does not meet a closing connection.
        connections: maximum number of open connections of an ``AsyncClient``; a ``Client`` has one per active thread.

    Raises:
        DefinitionError: a limit is not above zero.
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
    """How often a call is repeated, and after which pause.

    The pause before repeat k = 0, 1, ... is uniform in ``[0, min(cap_s, base_s * 2**k))`` ("full jitter"), so that
    clients that failed together do not retry together. The server's ``Retry-After`` is added.

    Args:
        attempts: maximum attempts of a call; after them, addresses that were not tried yet are tried if no server was
            reachable.
        base_s: upper bound of the first pause, seconds.
        cap_s: largest upper bound of a pause, seconds.
        retry_after_cap_s: maximum of ``Retry-After`` that is respected, seconds.
        deposit: amount that each call adds to the budget; a repeat costs 1. With a tenth, repeats add at most a tenth
            to the load in the long run.
        reserve: initial budget.
        most: maximum budget.

    Raises:
        DefinitionError: a number is negative, or ``attempts`` is less than 1.
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
        """Return the seconds to wait before a repeat.

        Args:
            repeat: number of the repeat, from 0.
            chance: uniform in ``[0, 1)``.
            retry_after: value of ``Retry-After``, seconds; 0: no such header.

        >>> Retries(base_s=0.1, cap_s=1.0).pause(2, 0.5, 0)
        0.2
        >>> Retries().pause(0, 0.0, 3600)
        5.0
        """
        return min(self.retry_after_cap_s, retry_after) + chance * min(self.cap_s, self.base_s * 2.0**repeat)


class Budget:
    """A token bucket over all calls of a client: calls fill it, repeats empty it. For several threads.

    As Finagle's ``RetryBudget`` and gRPC's retry throttling: single failures are repeated, but when most calls fail,
    repeats stop. So a recovering server receives little more than its usual load.
    """

    def __init__(self, retries: Retries) -> None:
        # In thousandths, since a tenth has no exact float, and ten deposits must make exactly one token.
        self._most, self._deposit = _thousandths(retries.most), _thousandths(retries.deposit)
        self._tokens = min(_thousandths(retries.reserve), self._most)
        self._lock = threading.Lock()

    def deposit(self) -> None:
        """Add the deposit of a call."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._deposit)

    def withdraw(self) -> bool:
        """Pay for one repeat; return whether the budget allowed it."""
        with self._lock:
            if self._tokens < _TOKEN:
                return False
            self._tokens -= _TOKEN
            return True


def _thousandths(tokens: float) -> int:
    return round(tokens * _TOKEN)
