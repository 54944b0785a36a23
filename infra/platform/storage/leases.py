"""Leases in the database: one holder at a time on all machines, and a token that fences former holders."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.telemetry.logger import EventLogger

_WAIT_S = 0.05
_SLOW_S = 10.0
_RENEWALS_PER_TTL = 3
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lease that a process has acquired.

    Args:
        name: of the work that it protects.
        holder: the process, with the machine.
        token: greater than that of each earlier holder.
    """

    name: str
    holder: str
    token: int


class LeaseRenewal:
    """Renews a lease during a ``with`` block.

    ``is_held`` counts from before the request, by this machine's monotonic clock. So it becomes false before another
    process can get the lease, unless this process is paused; the fencing token protects against pauses.

    Args:
        leases: of the project; their ttl is what one renewal lasts.
        lease: it was acquired.
        on_renewed: the thread calls it after each renewal, while the lease is held.
        acquired_at: when the lease was requested, by ``monotonic``.
        monotonic: returns the seconds of a clock that never jumps.
    """

    def __init__(
        self,
        leases: Leases,
        lease: Lease,
        *,
        acquired_at: float,
        on_renewed: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases, self.lease = leases, lease
        self._on_renewed = on_renewed
        self._monotonic = monotonic
        self._until = acquired_at + leases.ttl_s
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
            is_ours = self._leases.renew(self.lease)
        except StoreError as error:
            _log.warning("lease_not_renewed", lease=self.lease.name, problem=error.problem)
            return True
        if not is_ours:
            _log.warning("lease_lost", lease=self.lease.name)
        if was_held:
            # A lease of another holder counts as lost at once, without waiting for the rest of the old ttl.
            self._until = requested_at + self._leases.ttl_s if is_ours else requested_at
        if was_held and is_ours:
            self._on_renewed()
        return is_ours

    def _run(self) -> None:
        while not self._stop.wait(self._leases.ttl_s / _RENEWALS_PER_TTL) and self.renew():
            pass


class Leases:
    """The leases of a project. They expire by the clock of the database, so clocks of machines may differ.

    Args:
        ttl_s: seconds from acquiring or renewing a lease to its expiry.
    """

    def __init__(self, database: Database, ttl_s: float = 10.0) -> None:
        self._database = database
        self.ttl_s, self._ttl_us = ttl_s, int(ttl_s * 1_000_000)

    def acquire(self, name: str, *, holder: str | None = None) -> Lease | None:
        """Return the lease if it is free, expired, or held by this holder or by a process of this machine that died.

        Args:
            holder: unique name of the holder; None: a new one for this process.

        Returns:
            The lease; None if another holder has it.
        """
        holder = holder or new_holder()
        with self._database.transaction():
            now_us = self._database.now_us()
            rows = self._database.query("SELECT holder, token, until_us FROM leases WHERE name = ?", name)
            current, token, until_us = rows[0] if rows else ("", 0, 0)
            if until_us > now_us and current != holder and not has_died(current):
                return None
            # A repeated request, after a lost reply, keeps its token.
            token = token if current == holder and until_us > now_us else token + 1
            self._database.execute(
                "INSERT INTO leases (name, holder, token, until_us) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET holder = excluded.holder, token = excluded.token, until_us = excluded.until_us",
                name,
                holder,
                token,
                now_us + self._ttl_us,
            )
        return Lease(name=name, holder=holder, token=token)

    def renew(self, lease: Lease) -> bool:
        """Renew a lease; return False if it has another holder by now."""
        with self._database.transaction():
            rows = self._database.execute(
                "UPDATE leases SET until_us = ? WHERE name = ? AND holder = ? AND token = ? RETURNING name",
                self._database.now_us() + self._ttl_us,
                lease.name,
                lease.holder,
                lease.token,
            )
        return bool(rows)

    def release(self, lease: Lease) -> None:
        """Give up a lease, if it still has this holder. Its token stays, so that the next one is greater."""
        self._database.execute(
            "UPDATE leases SET until_us = 0 WHERE name = ? AND holder = ? AND token = ?",
            lease.name,
            lease.holder,
            lease.token,
        )

    def check(self, lease: Lease) -> None:
        """Check that no other process has acquired a lease; call it in the transaction of a write, as its fence.

        An expired lease that nobody has acquired is still good: nobody can have written meanwhile.

        Raises:
            ConflictError: another process has it.
        """
        rows = self._database.query("SELECT token, holder FROM leases WHERE name = ?", lease.name)
        # The holder, too: a database that was restored from a backup may give a token a second time.
        if not rows or rows[0] != (lease.token, lease.holder):
            raise ConflictError(
                f"lease {lease.name!r} with token {lease.token}",
                f"was lost to {rows[0][1] if rows else 'nobody'}",
                fix="do nothing: the other process continues",
            )

    def read_holder(self, name: str) -> str | None:
        """Return the current holder, None if the lease is free."""
        rows = self._database.query("SELECT holder, until_us FROM leases WHERE name = ?", name)
        return str(rows[0][0]) if rows and rows[0][1] > self._database.now_us() and not has_died(rows[0][0]) else None

    def list_held(self, prefix: str) -> list[str]:
        """Return the leases whose names begin with a text, and whose holders may still work, sorted.

        On this machine these are all that live, because a process that was paused for longer than its lease continues.
        """
        now_us = self._database.now_us()
        rows = self._database.query("SELECT name, holder, until_us FROM leases WHERE name LIKE ?", f"{prefix}%")
        alive = {name: (_is_alive(holder), until_us > now_us) for name, holder, until_us in rows}
        return sorted(name for name, (lives, is_held) in alive.items() if lives or (lives is None and is_held))

    @contextmanager
    def try_hold(self, name: str) -> Iterator[Lease | None]:
        """Hold a lease during the block, or yield None if another process has it."""
        requested_at = time.monotonic()
        lease = self.acquire(name)
        if lease is None:
            yield None
            return
        with self.renew_until_end(lease, requested_at):
            yield lease

    @contextmanager
    def hold(self, name: str) -> Iterator[Lease]:
        """Wait until a lease is free, and hold it during the block; say so in the log if the wait is long."""
        holder, began, is_logged = new_holder(), time.monotonic(), False
        requested_at = began
        while (lease := self.acquire(name, holder=holder)) is None:
            if not is_logged and time.monotonic() - began > _SLOW_S:
                is_logged = True
                _log.warning("waiting_for_a_lease", lease=name, holder=self.read_holder(name))
            time.sleep(_WAIT_S)
            requested_at = time.monotonic()
        with self.renew_until_end(lease, requested_at):
            yield lease

    @contextmanager
    def renew_until_end(
        self, lease: Lease, acquired_at: float, on_renewed: Callable[[], None] = lambda: None
    ) -> Iterator[LeaseRenewal]:
        """Renew a lease during the block, and release it at the end.

        Args:
            acquired_at: when it was requested, by the monotonic clock.
            on_renewed: called after each renewal, from another thread.
        """
        try:
            with LeaseRenewal(self, lease, acquired_at=acquired_at, on_renewed=on_renewed) as renewal:
                yield renewal
        finally:
            try:
                self.release(lease)
            except StoreError as error:
                _log.warning("lease_not_released", lease=lease.name, error=str(error), expires_in_s=self.ttl_s)


def new_holder() -> str:
    """Return a unique name of this process as a holder: host, machine, pid and a random part."""
    return f"{socket.gethostname()}/{machine_id()}/{os.getpid()}/{secrets.token_hex(4)}"


def has_died(holder: str) -> bool:
    """Return whether a holder was a process of this machine that has ended: its lease is free at once."""
    return _is_alive(holder) is False


def _is_alive(holder: str) -> bool | None:
    """Return whether a process of this machine lives; None for one of another machine."""
    parts = holder.split("/")
    if len(parts) != 4 or parts[1] != machine_id() or not parts[2].isdecimal():  # noqa: PLR2004 - see new_holder
        return None
    try:
        return is_process(int(parts[2]))
    except OverflowError:
        return None


def is_process(pid: int) -> bool:
    """Return whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def machine_id() -> str:
    """Return an identity of this machine and its process ids: containers with one host name must not share it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return secrets.token_hex(8)  # unknown: then only the expiry frees a lease
