"""The processes that use files of the logs: an object that one of them may still read is not deleted.

A process registers before it first lists files for a query, with a lease that it renews until it ends.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

from skewless.contract.errors import StoreError
from skewless.infra.storage.database import Database
from skewless.infra.storage.lease_renewal import LeaseRenewal
from skewless.infra.storage.leases import Leases, new_holder

_PREFIX = "log reader "
_TTL_S = 60.0
_renewals: dict[tuple[int, int], LeaseRenewal] = {}
_lock = threading.Lock()


def register_reader(database: Database) -> None:
    """Register this process as a reader, once; without the right to write it reads unregistered."""
    key = (os.getpid(), id(database))
    with _lock, suppress(StoreError):
        renewal = _renewals.get(key)
        if renewal is not None and renewal.is_held:
            return
        leases, holder, now = Leases(database, _TTL_S), new_holder(), time.monotonic()
        lease = leases.acquire(_PREFIX + holder, holder=holder)
        if lease is not None:
            # A renewal must not create the database again after its folder was deleted.
            _renewals[key] = LeaseRenewal(
                lease.name, lambda: database.exists() and leases.renew(lease), _TTL_S, acquired_at=now
            )
            _renewals[key].__enter__()


def list_readers(database: Database) -> list[str]:
    """Return the registered readers, sorted."""
    return Leases(database).list_held(_PREFIX)


def forget_readers(database: Database) -> None:
    """Delete the leases of readers that have ended."""
    with database.transaction():
        active = set(list_readers(database))
        for (name,) in database.query("SELECT name FROM leases WHERE name LIKE ?", f"{_PREFIX}%"):
            if name not in active:
                database.execute("DELETE FROM leases WHERE name = ?", name)
