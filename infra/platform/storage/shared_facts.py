"""The facts that all hosts of a project share: which storage belongs to the database, and the partitions of streams.

``apply`` records both. A host that forgets a setting would else register objects that no other host can read, or leave
events unread.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.objects import ObjectStorage

_FOLDER = "place"  # of the object whose name the database has
_KIND, _NAME = "shared", "facts"


def record_shared(database: Database, storage: ObjectStorage | None, stream_partitions: int) -> None:
    """Record what the hosts share, as this host has it.

    Args:
        storage: None: the storage is the state folder.

    Raises:
        StoreError: the database or the storage is unavailable.
    """
    known = Documents(database, _KIND).get(_NAME) or {}
    place = known.get("place")
    if place is None and storage is not None:
        place = f"{_FOLDER}/{uuid.uuid4().hex}"
        storage.put(place, b"the database of this storage knows this name")  # first: a killed apply is run again
    facts = {"place": place, "stream_partitions": stream_partitions}
    if facts != known:
        Documents(database, _KIND).put(_NAME, facts)


def move_place(database: Database, storage: ObjectStorage) -> None:
    """Record that a storage belongs to a database, whose copy is being restored there."""
    place = (Documents(database, _KIND).get(_NAME) or {}).get("place")
    if place is not None:
        storage.put(place, b"the database of this storage knows this name")


def check_storage(database: Database, storage: ObjectStorage) -> None:
    """Check once that a storage is that of the database; while one of them is unavailable, nothing is known.

    Raises:
        DefinitionError: it is another storage.
    """
    if storage.is_known:
        return
    with suppress(StoreError):
        place = (Documents(database, _KIND).get(_NAME) or {}).get("place") if database.exists() else None
        if place is None:
            return
        if all(item.name != place for item in storage.list_objects(_FOLDER)):
            fix = "set storage_url as on the other hosts; `skewless backup` and `restore` move a project"
            raise DefinitionError("setting 'storage_url'", "is not the storage of the database", fix=fix)
        storage.is_known = True


def check_partitions(database: Database, stream_partitions: int) -> None:
    """Check that this host has as many partitions of push sources as the host that applied the plan.

    Raises:
        DefinitionError: it has more, or fewer: events would wait unread.
    """
    with suppress(StoreError):
        known = (Documents(database, _KIND).get(_NAME) or {}).get("stream_partitions", stream_partitions)
        if known != stream_partitions:
            problem = f"is {known} where the plan was applied"
            fix = "set the same number on all hosts; to change it, set it everywhere and run `skewless apply`"
            raise DefinitionError("setting 'stream_partitions'", problem, value=stream_partitions, fix=fix)
