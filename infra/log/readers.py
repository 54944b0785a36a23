"""The processes that use files of the logs: an object that one of them may still read is not deleted.

A process registers before it first lists files for a query, with a lease that it has until it ends.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, suppress

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.leases import LeaseRenewal, Leases, new_holder

READER = "log reader "
_TTL_S = 60.0
# On one machine, a lease ends with its process. So it needs no renewal, only a limit for processes of containers.
_LOCAL_TTL_S = 86_400.0
_renewals: dict[tuple[int, int], LeaseRenewal] = {}
_threads = ExitStack()
_lock = threading.Lock()


def register_reader(database: Database) -> None:
    """Register this process as a reader, once; without the right to write it reads unregistered."""
    key = (os.getpid(), id(database))
    with _lock, suppress(StoreError):
        renewal = _renewals.get(key)
        if renewal is not None and renewal.is_held:
            return
        ttl_s = _TTL_S if database.is_shared else _LOCAL_TTL_S
        leases, holder, now = Leases(database, ttl_s), new_holder(), time.monotonic()
        lease = leases.acquire(READER + holder, holder=holder)
        if lease is not None:
            _renewals[key] = LeaseRenewal(leases, lease, acquired_at=now)
            if database.is_shared:
                _threads.enter_context(_renewals[key])


def release_reader(database: Database) -> None:
    """End the registration: files that were listed with this object of the database are not used any more.

    Without it, a process that runs for months would keep all files that were replaced or erased meanwhile.
    """
    with _lock, suppress(StoreError):
        renewal = _renewals.pop((os.getpid(), id(database)), None)
        if renewal is None:
            return
        if database.is_shared:
            renewal.__exit__(None, None, None)
        database.execute("DELETE FROM leases WHERE name = ?", renewal.lease.name)


def list_readers(database: Database) -> list[str]:
    """Return the registered readers, sorted."""
    return Leases(database).list_held(READER)


def forget_readers(database: Database) -> None:
    """Delete the leases of readers that have ended."""
    with database.transaction():
        active = set(list_readers(database))
        for (name,) in database.query("SELECT name FROM leases WHERE name LIKE ?", f"{READER}%"):
            if name not in active:
                database.execute("DELETE FROM leases WHERE name = ?", name)
