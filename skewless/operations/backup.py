"""A backup of a project while everything runs, and its restoration elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import ConflictError, PlaceError, StoreError
from skewless.infra.storage.durable import make_folder, replace_durable
from skewless.infra.storage.project_state import ANSWERS_FILE, DATABASE_FILE, ProjectState
from skewless.infra.storage.sqlite_database import SqliteDatabase
from skewless.infra.storage.table_copy import copy_tables, count_rows
from skewless.version import __version__

if TYPE_CHECKING:
    from skewless.workspace import Workspace

_DESCRIPTION, _FILES = "backup.json", "files"
# Of this machine or these processes alone, or created again from the rest.
_SKIPPED = {"redis", "spill", "cache", "staging", "processes", "server.json", "demo", DATABASE_FILE, ANSWERS_FILE}
_SKIPPED_ENDINGS = (".lock", ".gate", ".tmp", ".db-wal", ".db-shm")
_ATTEMPTS = 5
OnFile = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Backup:
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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def back_up(project: Workspace, folder: Path, *, dry_run: bool = False, on_file: OnFile = lambda *_: None) -> Backup:
    """Copy the database and the files of a project into a new folder; everything may run meanwhile.

    The database is copied first, as one state. Files are only added or merged, so they contain at least what the
    database refers to. The copied logs are verified. The folder gets its name at the end; a backup that was
    interrupted continues with the files that it has.

    Args:
        folder: must not exist.
        dry_run: count only.
        on_file: called with the number of copied files, and of all files.

    Raises:
        ConflictError: the folder exists.
        StoreError: the database, or a disk, failed; or a log of the project is corrupt.
    """
    if folder.exists():
        raise ConflictError(f"folder {folder}", "exists", fix="name a new one")
    state = project.state
    if dry_run:
        paths = list(_list_files(state.folder))
        rows, size = count_rows(state.database), sum(path.stat().st_size for path in paths)
        return Backup(folder=str(folder), at_us=project.clock.now_us(), rows=rows, files=len(paths), size=size)
    partial = folder.with_name(f"{folder.name}.partial")
    make_folder(partial / _FILES)
    for name in (DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm"):
        (partial / name).unlink(missing_ok=True)
    at_us, copy = project.clock.now_us(), SqliteDatabase(partial / DATABASE_FILE)
    rows = copy_tables(state.database, copy)
    copy.close()
    files = _copy_consistently(state.folder, partial / _FILES, on_file)
    size = sum(path.stat().st_size for path in files)
    backup = Backup(folder=str(folder), at_us=at_us, rows=rows, files=len(files), size=size)
    replace_durable(partial / _DESCRIPTION, (json.dumps(backup.as_dict()) + "\n").encode())
    partial.rename(folder)
    return backup


def restore(state: ProjectState, folder: Path, *, dry_run: bool = False, on_file: OnFile = lambda *_: None) -> Backup:
    """Copy a backup into an empty state folder and an empty database; return the backup.

    The tables are copied last, in one transaction. A restoration that was interrupted is run again.

    Raises:
        PlaceError: the folder has no backup.
        ConflictError: the project has state already.
        StoreError: the database, or a disk, failed.
    """
    backup = _read_description(folder)
    if any(count_rows(state.database).values()):
        raise ConflictError(state.database.name, "is not empty", fix="name an empty database in database_url")
    source = folder / _FILES
    known = {path.relative_to(source) for path in _list_files(source)}
    others = sorted({path.relative_to(state.folder) for path in _list_files(state.folder)} - known)
    if others:
        fix = "restore into a new state folder (setting state)"
        raise ConflictError(f"state folder {state.folder}", "has files of a project", value=str(others[0]), fix=fix)
    if dry_run:
        return backup
    files = _copy_files(source, state.folder, on_file)
    if len(files) != backup.files:
        problem = f"has {len(files)} files, and had {backup.files} when it was written"
        raise StoreError(f"backup {folder}", problem, fix="use another backup")
    copy = SqliteDatabase(folder / DATABASE_FILE)
    copy_tables(copy, state.database)
    copy.close()
    return backup


def _copy_consistently(source: Path, target: Path, on_file: OnFile) -> list[Path]:
    """Copy all files until the copied logs are complete: a log may be compacted during the copy."""
    from skewless.operations.checkup.logs import check_logs

    for _ in range(_ATTEMPTS):
        files = _copy_files(source, target, on_file)
        findings = [finding for finding in check_logs(ProjectState(target)) if finding.verdict == "fail"]
        if not findings:
            return files
    raise StoreError(
        f"copy of {findings[0].name}", findings[0].detail, fix="run `skewless doctor`, then make the backup again"
    )


def _copy_files(source: Path, target: Path, on_file: OnFile) -> list[Path]:
    """Copy new and changed files, delete others; return the copies."""
    paths = list(_list_files(source))
    copies = []
    for number, path in enumerate(paths):
        copy = target / path.relative_to(source)
        if _copy_file(path, copy):
            copies.append(copy)
        on_file(number + 1, len(paths))
    for other in set(_list_files(target)) - set(copies):
        other.unlink()
    return copies


def _copy_file(path: Path, copy: Path) -> bool:
    """Copy a file with its time, unless the copy is the same; return False if it was deleted meanwhile."""
    staging = copy.with_name(f".{copy.name}.tmp")
    try:
        stat = path.stat()
        if copy.exists() and (copy.stat().st_size, copy.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return True
        make_folder(copy.parent)
        shutil.copy2(path, staging)
    except FileNotFoundError:
        return False
    staging.replace(copy)
    return True


def _list_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a state folder that a backup contains, sorted."""
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
