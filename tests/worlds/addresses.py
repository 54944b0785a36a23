"""Where the projects of a test have database and objects: the defaults, or a PostgreSQL and a storage with S3."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from skewless.infra.platform.storage.objects import ObjectStorage
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.schema import KEYS, copy_tables
from skewless_cloud.storage import CloudStorage

SCENE = ("documents", "records")  # the tables that `read_tables` reads by default


@dataclass(frozen=True, kw_only=True)
class ProjectAddresses:
    """A PostgreSQL and a storage, in which each folder has a schema and a prefix of its own.

    Args:
        database_url: of the server; None: SQLite files.
        storage_url: with a prefix; None: the folders.
    """

    database_url: str | None = None
    storage_url: str | None = None

    @property
    def is_shared(self) -> bool:
        """Whether several machines could use them."""
        return self.database_url is not None

    def state(self, folder: Path) -> ProjectState:
        """Return the state of a project in a folder; the same for all processes."""
        return ProjectState(folder, self._database_of(folder), self._storage_of(folder))

    def settings(self, repo: Path) -> str:
        """Return the lines of a project's ``skewless.yaml``."""
        database_url, storage_url = self._database_of(repo), self._storage_of(repo)
        return f"database_url: {database_url}\nstorage_url: {storage_url}\n" if self.is_shared else ""

    def _database_of(self, folder: Path) -> str | None:
        if self.database_url is None:
            return None
        return f"{self.database_url}{'&' if '?' in self.database_url else '?'}schema=test_{_name(folder)}"

    def _storage_of(self, folder: Path) -> str | None:
        if self.storage_url is None:
            return None
        base, mark, query = self.storage_url.partition("?")
        return f"{base}/{_name(folder)}{mark}{query}"


def copy_state(source: ProjectState, target: ProjectState, *, with_folder: bool = True) -> None:
    """Copy a project's folder, tables and objects to places where nothing is yet; nobody uses them meanwhile.

    Args:
        source: what is copied.
        target: at the same kind of addresses.
        with_folder: False: the caller has copied the folder.
    """
    source.database.close()  # so that an SQLite file has all rows
    if with_folder:
        shutil.copytree(source.folder, target.folder)
    if source.database_url is not None:
        target.database.upgrade()
        copy_tables(source.database, target.database)
        source.database.close()
        target.database.close()
    if isinstance(source.storage, CloudStorage):
        for item in source.storage.list_objects(""):
            write_object(target.storage, item.name, read_object(source.storage, item.name))


def read_object(storage: ObjectStorage, name: str) -> bytes:
    """Return the bytes of an object in a bucket, without a local copy."""
    assert isinstance(storage, CloudStorage)
    return b"".join(map(bytes, storage._read_chunks(name)))


def write_object(storage: ObjectStorage, name: str, data: bytes) -> None:
    """Store bytes in a bucket, without a local copy, also over those of an object."""
    assert isinstance(storage, CloudStorage)
    storage._upload(name, memoryview(data))


def read_tables(state: ProjectState, tables: tuple[str, ...] = SCENE) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of some tables."""
    return {table: state.database.query(f"SELECT * FROM {table}") for table in tables}


def replace_tables(state: ProjectState, tables: dict[str, list[tuple[Any, ...]]]) -> None:
    """Put tables back to rows that they had."""
    with state.database.transaction():
        for table, rows in tables.items():
            state.database.execute(f"DELETE FROM {table}")
            for row in rows:
                state.database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)


def all_tables(state: ProjectState) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of all tables."""
    return read_tables(state, tuple(KEYS))


def _name(folder: Path) -> str:
    return blake2b(str(folder).encode(), digest_size=8).hexdigest()
