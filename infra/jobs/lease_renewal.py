"""A lease that is held: a thread renews it at a third of its time, and knows when it is no longer sure of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from skewless.contract.errors import StoreError

_RENEWALS_PER_TERM = 3


class RenewableLease(Protocol):
    """A lease, as far as its keeping goes."""

    @property
    def ttl_s(self) -> float:
        """Return the seconds for which one renewal holds."""
        ...

    def renew(self) -> bool:
        """Say whether it is still ours, for another term; raise StoreError where nobody answers."""
        ...


class LeaseRenewal:
    """Keeps a lease inside a ``with`` block.

    ``is_held`` counts from before a renewal was asked for, by this machine's monotonic clock: it turns false before
    anybody else can have the lease, as long as the process is not paused; against pauses there is the fencing token.

    Args:
        on_renewed: called by the thread after each renewal.
        monotonic: seconds of a clock that never jumps.
    """

    def __init__(
        self,
        lease: RenewableLease,
        *,
        on_renewed: Callable[[], None],
        taken_at: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._on_renewed = on_renewed
        self._monotonic = monotonic
        self._until = taken_at + lease.ttl_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have the lease now."""
        return self._monotonic() < self._until

    def _keep(self) -> None:
        while self.is_held and not self._stop.wait(self._lease.ttl_s / _RENEWALS_PER_TERM):
            self.renew()

    def renew(self) -> None:
        """Ask for another term; a store that does not answer is asked again next time."""
        asked_at = self._monotonic()
        try:
            is_ours = self._lease.renew()
        except StoreError:
            return
        self._until = asked_at + self._lease.ttl_s if is_ours else asked_at
        if is_ours:
            self._on_renewed()
