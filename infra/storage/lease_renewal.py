"""Renews a lease in a thread, three times per ttl, and tracks whether it is certainly still held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from skewless.contract.errors import StoreError
from skewless.infra.telemetry.logger import EventLogger

_RENEWALS_PER_TTL = 3
_log = EventLogger()


class LeaseRenewal:
    """Renews a lease during a ``with`` block.

    ``is_held`` counts from before the request, by this machine's monotonic clock. So it becomes false before another
    process can get the lease, unless this process is paused; the fencing token protects against pauses.

    Args:
        name: of the lease.
        renew: renews the lease; returns False if it has another holder, raises StoreError without an answer.
        ttl_s: seconds that one renewal lasts.
        on_renewed: the thread calls it after each renewal, while the lease is held.
        acquired_at: when the lease was requested, by ``monotonic``.
        monotonic: returns the seconds of a clock that never jumps.
    """

    def __init__(
        self,
        name: str,
        renew: Callable[[], bool],
        ttl_s: float,
        *,
        acquired_at: float,
        on_renewed: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._request = renew
        self._ttl_s = ttl_s
        self._on_renewed = on_renewed
        self._monotonic = monotonic
        self._until = acquired_at + ttl_s
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
        """Whether no other process can have held the lease since it was acquired."""
        return self._monotonic() < self._until

    def renew(self) -> bool:
        """Request another ttl; return False if the lease has another holder. Without an answer, try again later."""
        # The ttl starts in the database during the request, so counting from before it never overestimates the lease.
        requested_at = self._monotonic()
        # Final once it has lapsed. A later renewal still keeps the lease, if nobody has acquired it meanwhile: then the
        # fence lets its writes pass.
        was_held = requested_at < self._until
        try:
            is_ours = self._request()
        except StoreError as error:
            _log.warning("lease_not_renewed", lease=self._name, problem=error.problem)
            return True
        if not is_ours:
            _log.warning("lease_lost", lease=self._name)
        if was_held:
            # A lease of another holder counts as lost at once, without waiting for the rest of the old ttl.
            self._until = requested_at + self._ttl_s if is_ours else requested_at
        if was_held and is_ours:
            self._on_renewed()
        return is_ours

    def _run(self) -> None:
        while not self._stop.wait(self._ttl_s / _RENEWALS_PER_TTL) and self.renew():
            pass
