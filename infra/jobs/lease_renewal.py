"""Renews a lease in a thread, three times per ttl, and tracks whether it is certainly still held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from skewless.contract.errors import StoreError

_RENEWALS_PER_TERM = 3


class RenewableLease(Protocol):
    """The part of a lease that its renewal needs."""

    @property
    def ttl_s(self) -> float:
        """Return the seconds that one renewal lasts."""
        ...

    def renew(self) -> bool:
        """Renew the lease; return whether it is still ours. Raise StoreError if the store does not answer."""
        ...


class LeaseRenewal:
    """Renews a lease during a ``with`` block.

    ``is_held`` counts from before the renewal request, by this machine's monotonic clock. So it becomes false before
    another process can get the lease, unless this process is paused; the fencing token protects against pauses.

    Args:
        on_renewed: the thread calls it after each renewal.
        acquired_at: when the lease was requested, by ``monotonic``.
        monotonic: returns the seconds of a clock that never jumps.
    """

    def __init__(
        self,
        lease: RenewableLease,
        *,
        on_renewed: Callable[[], None],
        acquired_at: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._on_renewed = on_renewed
        self._monotonic = monotonic
        self._until = acquired_at + lease.ttl_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_held(self) -> bool:
        """Whether no other process can hold the lease now."""
        return self._monotonic() < self._until

    def _run(self) -> None:
        # A lapse ends the thread for good: another scheduler may have been the leader since, and only a new term has a
        # new fencing token.
        while self.is_held and not self._stop.wait(self._lease.ttl_s / _RENEWALS_PER_TERM):
            self.renew()

    def renew(self) -> None:
        """Request another ttl; if the store does not answer, the next renewal tries again."""
        # The store's ttl starts during the request, so counting from before it never overestimates the lease.
        requested_at = self._monotonic()
        try:
            is_ours = self._lease.renew()
        except StoreError:
            return
        # A lease of another holder counts as lost at once, without waiting for the rest of the old ttl.
        self._until = requested_at + self._lease.ttl_s if is_ours else requested_at
        if is_ours:
            self._on_renewed()
