"""A backup of a project while everything runs, and its restoration elsewhere, also into another kind of storage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.errors import ConflictError, PlaceError, StoreError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.log.catalog import Catalog, Segment
from skewless.infra.log.readers import register_reader
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.durable import disk_error, make_folder, rename_durable, replace_durable
from skewless.infra.platform.storage.names import check_folder_name
from skewless.infra.platform.storage.objects import FolderStorage, ObjectStorage, StoredObject, corrupt_error
from skewless.infra.platform.storage.package_folder import PackageFolder
from skewless.infra.platform.storage.project_state import ANSWERS_FILE, DATABASE_FILE, ProjectState
from skewless.infra.platform.storage.schema import copy_tables, count_rows
from skewless.infra.platform.storage.shared_facts import move_place
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from skewless.version import __version__
from skewless.workspace import Workspace

_DESCRIPTION, _FILES = "backup.json", "files"
_OBJECTS = ("log", "predictions", "outcomes")
_SPOOL = "spool"
# Of this machine or these processes alone, created again from the rest, or copied as objects.
_SKIPPED = {"redis", "spill", "label_rows", "cache", "staging", "server.json", "demo"}
_SKIPPED |= {DATABASE_FILE, ANSWERS_FILE, *_OBJECTS}
_SKIPPED_ENDINGS = (".lock", ".gate", ".tmp", ".db-wal", ".db-shm")
OnFile = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Backup(PlainRecord):
    """A backup, or what one would contain.

    Args:
        folder: of the backup.
        at_us: time of the database's state, microseconds.
        rows: per table of the database.
        files: number of files.
        size: of the files, bytes.
        release: of the program that wrote it.
    """

    folder: str
    at_us: int
    rows: Mapping[str, int]
    files: int
    size: int
    release: str = __version__


def back_up(project: Workspace, folder: Path, *, dry_run: bool = False, on_file: OnFile = lambda *_: None) -> Backup:
    """Copy the database, its logs and the files of a project into a new folder; everything may run meanwhile.

    What waits to be shipped is copied first, then the database, as one state, and then the objects that its logs name:
    this process is registered as their reader, so they stay. Each copy of an object is compared with its digest. Other
    files are only added, so they contain at least what the database refers to. The folder gets its name at the end; a
    backup that was interrupted continues with the files that it has.

    Args:
        folder: must not exist.
        dry_run: count only.
        on_file: called with the number of copied files, and of all files.

    Raises:
        ConflictError: the folder exists.
        StoreError: the database, the storage, or a disk, failed; or an object of a log is missing or altered.
    """
    if folder.exists():
        raise ConflictError(f"folder {folder}", "exists", fix="name a new one")
    check_folder_name(folder)
    state, at_us = project.state, project.clock.now_us()
    if dry_run:
        sizes = [path.stat().st_size for path in _list_files(state.folder)]
        sizes += [segment.stored.size for _, segment in _list_segments(state.database)]
        rows = count_rows(state.database)
        return Backup(folder=str(folder), at_us=at_us, rows=rows, files=len(sizes), size=sum(sizes))
    partial = folder.with_name(f"{folder.name}.partial")
    make_folder(partial / _FILES)
    for path in sorted(partial.iterdir()):  # of an interrupted backup: first its description, so that none is wrong
        if path.is_file():
            path.unlink()
    rows, copies = _copy_state(state, partial, on_file)
    size = sum(path.stat().st_size for path in copies)
    backup = Backup(folder=str(folder), at_us=at_us, rows=rows, files=len(copies), size=size)
    replace_durable(partial / _DESCRIPTION, (json.dumps(backup.as_dict()) + "\n").encode())
    rename_durable(partial, folder)
    return backup


def _copy_state(state: ProjectState, partial: Path, on_file: OnFile) -> tuple[dict[str, int], list[Path]]:
    """Copy everything; return the rows per table, and the copied files."""
    files = partial / _FILES
    target = FolderStorage(files)
    register_reader(state.database)
    # Before the database: what is shipped meanwhile is in both then, and is not added to the log again.
    spooled = [path for path in _list_files(state.folder) if _is_spooled(path, state.folder)]
    copies = [copy for path in spooled if (copy := _copy_file(path, files, state.folder))]
    with closing(SqliteDatabase(partial / DATABASE_FILE)) as database:
        rows = copy_tables(state.database, database)
        objects = [segment.stored for _, segment in _list_segments(database)]
    PackageFolder.of(state).download_all()
    paths = [path for path in _list_files(state.folder) if not _is_spooled(path, state.folder)]
    total = len(copies) + len(objects) + len(paths)
    for stored in objects:
        if not _has(target, stored):
            _copy_object(state.storage, target, stored)
        copies.append(files / stored.name)
        on_file(len(copies), total)
    for path in paths:
        copies.extend(filter(None, [_copy_file(path, files, state.folder)]))
        on_file(len(copies), total)
    for other in {path for path in files.rglob("*") if path.is_file()} - set(copies):
        other.unlink()  # of an interrupted backup
    return rows, copies


def _is_spooled(path: Path, folder: Path) -> bool:
    return path.relative_to(folder).parts[0] == _SPOOL


def _has(target: ObjectStorage, stored: StoredObject) -> bool:
    """Return whether an earlier, interrupted backup has copied an object; an incomplete copy is deleted."""
    try:
        target.verify(stored)
    except StoreError:
        target.delete([stored.name])
        return False
    return True


def restore(state: ProjectState, folder: Path, *, dry_run: bool = False, on_file: OnFile = lambda *_: None) -> Backup:
    """Copy a backup into an empty state folder, storage and database; return the backup.

    The tables are copied last, in one transaction. A restoration that was interrupted is run again.

    Raises:
        PlaceError: the folder has no backup.
        ConflictError: the project has state already.
        StoreError: the database, the storage, or a disk, failed; or the backup is incomplete or altered.
    """
    backup, source = _read_description(folder), folder / _FILES
    if any(count_rows(state.database).values()):
        raise ConflictError(state.database.name, "is not empty", fix="name an empty database in database_url")
    with closing(SqliteDatabase(folder / DATABASE_FILE)) as database:
        segments, paths = _list_segments(database), list(_list_files(source))
        known = {path.relative_to(source).as_posix() for path in paths} | {item.stored.name for _, item in segments}
        _reject_others(state, known)
        if len(segments) + len(paths) != backup.files:
            problem = f"has {len(segments) + len(paths)} files, and had {backup.files} when it was written"
            raise StoreError(f"backup {folder}", problem, fix="use another backup")
        if dry_run:
            return backup
        copied: list[tuple[str, Segment]] = []
        for number, (partition, segment) in enumerate(segments, 1):
            stored = _copy_object(FolderStorage(source), state.storage, segment.stored)
            copied.append((partition, segment._replace(stored=stored)))
            on_file(number, backup.files)
        for number, path in enumerate(paths, len(segments) + 1):
            _copy_file(path, state.folder, source)
            on_file(number, backup.files)
        packages = PackageFolder.of(state)
        uploads = packages.upload_all()
        move_place(database, state.storage)
        with state.database.transaction():
            copy_tables(database, state.database)
            for partition, segment in copied:
                Catalog(state.database).restamp(partition, segment)
            for (model, version), objects in uploads.items():
                packages.register(model, version, objects)
    return backup


def _reject_others(state: ProjectState, known: set[str]) -> None:
    """Reject a restoration over files of a project; those of the backup are of an interrupted restoration."""
    names = {path.relative_to(state.folder).as_posix() for path in _list_files(state.folder)}
    names.update(item.name for folder in _OBJECTS for item in state.storage.list_objects(folder))
    others = sorted(name for name in names - known if not name.endswith(_SKIPPED_ENDINGS))
    if others:
        fix = "restore into a new state folder (setting state)"
        raise ConflictError(f"state folder {state.folder}", "has files of a project", value=others[0], fix=fix)


def _list_segments(database: Database) -> list[tuple[str, Segment]]:
    """Return all segments of all logs, each with its partition."""
    catalog = Catalog(database)
    with database.snapshot():
        return [(partition, item) for partition in catalog.partitions() for item in catalog.segments(partition)]


def _copy_object(source: ObjectStorage, target: ObjectStorage, stored: StoredObject) -> StoredObject:
    """Copy an object under its name, and compare its digest; return it as the target has it.

    Raises:
        StoreError: it is missing, or was altered; the target does not have it.
    """
    path = target.staging_path()
    try:
        shutil.copyfile(source.local_path(stored), path)
        copy = target.put_file(stored.name, path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        path.unlink(missing_ok=True)
    if copy.digest != stored.digest:
        target.delete([stored.name])
        raise corrupt_error(stored.name, "its content has changed since it was written")
    return copy


def _copy_file(path: Path, target: Path, source: Path) -> Path | None:
    """Copy a file with its time, unless the copy is the same; return None if it was deleted meanwhile."""
    copy = target / path.relative_to(source)
    staging = copy.with_name(f".{copy.name}.tmp")
    try:
        stat = path.stat()
        if copy.exists() and (copy.stat().st_size, copy.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return copy
        make_folder(copy.parent)
        shutil.copy2(path, staging)
    except FileNotFoundError:
        return None
    rename_durable(staging, copy)
    return copy


def _list_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a state folder that a backup contains in addition to objects, sorted."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if parts[0] not in _SKIPPED and not path.name.endswith(_SKIPPED_ENDINGS) and path.is_file():
            yield path


def _read_description(folder: Path) -> Backup:
    try:
        return Backup(**json.loads((folder / _DESCRIPTION).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        fix = "name a folder that `skewless backup` has completed"
        raise PlaceError(f"folder {folder}", f"has no readable {_DESCRIPTION}", fix=fix) from error
