"""The state of a project: what changes, and where it is stored."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from skewless.contract.errors import DefinitionError
from skewless.contract.names import is_name
from skewless.contract.settings import Settings
from skewless.infra.platform.host.plugins import find_plugin
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.objects import FolderStorage, ObjectStorage
from skewless.infra.platform.storage.shared_facts import check_storage
from skewless.infra.platform.storage.sqlite_database import AnswerMemory, SqliteDatabase

DATABASE_FILE = "skewless.db"
ANSWERS_FILE = "answers.db"
_SQLITE = "sqlite:///"

OpenDatabase = Callable[[str], Database]
"""Opens the database at a URL, an entry point of ``skewless.databases`` under the scheme of the URL."""
OpenStorage = Callable[[str, Path, int], ObjectStorage]
"""Opens the object storage at a URL, an entry point of ``skewless.storages`` under the scheme of the URL.

It gets the URL, a folder of this machine for copies and unfinished files, and the limit of the copies, bytes.
"""


@dataclass(frozen=True)
class ProjectState:
    """The places of a project's state. It can be pickled, so that other processes get the same places.

    Args:
        folder: files, the private online store, and by default the database.
        database_url: address of the database; None: an SQLite file in the folder.
        storage_url: address of the object storage; None: the folder.
        cache_gb: limit of the local copies of its objects, gigabytes.
    """

    folder: Path
    database_url: str | None = field(default=None, repr=False)  # may contain a password
    storage_url: str | None = field(default=None, repr=False)
    cache_gb: float = 10.0

    @classmethod
    def of(cls, repo: Path, settings: Settings) -> ProjectState:
        """Return the state of the project in a folder; projects can share a PostgreSQL and a bucket."""
        url, storage_url = settings.database_url, settings.storage_url
        if url is not None and not url.startswith("sqlite:") and "schema=" not in url:
            url += f"{'&' if '?' in url else '?'}schema=skewless_{_project_name(repo)}"
        if storage_url is not None:
            storage_url = _append_project(storage_url, _project_name(repo))
        return cls((repo / settings.state).resolve(), url, storage_url, settings.storage_cache_gb)

    @property
    def database(self) -> Database:
        """The database of everything small that changes; all objects of a process share its connections.

        Raises:
            DefinitionError: the address is of an unknown kind.
        """
        return open_database(self.database_url or f"sqlite:///{self.folder / DATABASE_FILE}")

    @property
    def storage(self) -> ObjectStorage:
        """The storage of everything immutable; all objects of a process share it.

        Raises:
            DefinitionError: the address is of another kind, its plug-in is missing, or it is not the storage of the
                database.
            StoreError: the environment lacks something that the storage needs.
        """
        storage = open_storage(self.folder, self.storage_url, int(self.cache_gb * 1e9))
        if self.is_shared:
            check_storage(self.database, storage)
        return storage

    @property
    def is_shared(self) -> bool:
        """Whether database or storage is elsewhere than in the folder, so that other hosts may use it."""
        return self.database_url is not None or self.storage_url is not None

    def remember_reads(self) -> None:
        """Let this process read what it or an earlier process has read before, while a remote database is down."""
        if self.database_url is not None and not self.database_url.startswith(_SQLITE):
            self.database.remember(AnswerMemory(self.folder / ANSWERS_FILE))

    def __truediv__(self, name: str) -> Path:
        """Return the path of a file in the folder."""
        return self.folder / name


def _append_project(url: str, project: str) -> str:
    """Return a URL with a project's name after its prefix, so that projects can share a bucket.

    >>> _append_project("s3://features/shop/?region=eu-west-1", "fraud")
    's3://features/shop/fraud?region=eu-west-1'
    """
    base, mark, query = url.partition("?")
    return f"{base.rstrip('/')}/{project}{mark}{query}"


def _project_name(repo: Path) -> str:
    """Return the project name of a ``feature_store.yaml``, ``project`` if it has none."""
    try:
        config = yaml.safe_load((repo / "feature_store.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return "project"  # the compiler of the definitions reports it
    name = config.get("project") if isinstance(config, dict) else None
    return str(name) if is_name(name) else "project"


_databases: dict[str, Database] = {}
_storages: dict[tuple[Path, str | None, int], ObjectStorage] = {}
_open_lock = threading.Lock()


@atexit.register
def _close_databases() -> None:
    for database in _databases.values():
        database.close()


def open_database(url: str) -> Database:
    """Return the database at an address; all callers of a process share it.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://...``.

    Raises:
        DefinitionError: the address is of another kind, or its plug-in is missing.
    """
    with _open_lock:
        if url not in _databases:
            _databases[url] = _find_database(url)(url)
        return _databases[url]


def _find_database(url: str) -> OpenDatabase:
    if url.startswith(_SQLITE):
        return lambda url: SqliteDatabase(Path(url.removeprefix(_SQLITE)))
    scheme = url.partition(":")[0]
    opener: OpenDatabase | None = find_plugin("skewless.databases", scheme)
    if opener is None:
        fix = "write sqlite:///PATH; or for postgresql://USER@HOST/DATABASE pip install 'skewless[postgres]'"
        raise DefinitionError("setting 'database_url'", "is not an address we know", value=scheme, fix=fix)
    return opener


def open_storage(root: Path, storage_url: str | None, cache_bytes: int) -> ObjectStorage:
    """Return the object storage at an address; all callers of a process share it.

    Args:
        root: folder of the objects, or of the local copies.
        storage_url: ``s3://``, ``gs://`` or ``az://``; None: the folder.
        cache_bytes: limit of the local copies.

    Raises:
        DefinitionError: the address is of another kind, or its plug-in is missing.
        StoreError: the environment lacks something that the storage needs.
    """
    key = (root, storage_url, cache_bytes)
    with _open_lock:
        if key not in _storages:
            cloud = None if storage_url is None else _find_storage(storage_url)(storage_url, root, cache_bytes)
            _storages[key] = cloud or FolderStorage(root)
        return _storages[key]


def _find_storage(url: str) -> OpenStorage:
    scheme = url.partition(":")[0]
    opener: OpenStorage | None = find_plugin("skewless.storages", scheme)
    if opener is None:
        fix = "for s3://BUCKET/PREFIX, gs://BUCKET/PREFIX and az://CONTAINER/PREFIX, pip install 'skewless[cloud]'"
        raise DefinitionError("setting 'storage_url'", "is not an address we know", value=scheme, fix=fix)
    return opener
