"""Merges the small files of the prediction log, a UTC day at a time; a kill at any point changes no query's result.

The durable steps, in order: write the merged file, which names its sources; mark it as proven, if all its sources
were; and, in a run after the grace time, delete the sources. A merged file gets its name by ``link``, which fails if
the name exists: if two machines merge a day at the same time, one stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import StoreError
from skewless.infra.log.inventory import Inventory, add_to_inventory
from skewless.infra.predictions.files import (
    BATCH_ROWS,
    DAY_US,
    FOLDER,
    FileListing,
    add_proven,
    add_source_names,
    merged_from,
    merged_name,
    proven_files,
    write_rows,
)
from skewless.infra.storage.durable import create_durable, disk_error, sync_folder, try_lock
from skewless.infra.storage.project_state import ProjectState

_FEWEST = 2


@dataclass(kw_only=True)
class _MergeGroup:
    """Files to merge into one file."""

    is_proven: bool
    names: list[str] = field(default_factory=list)
    rows: int = 0


def compact(state: ProjectState, *, now_us: int, grace_s: float, clock: Callable[[], float] = time.time) -> int:
    """Merge the files of past days, up to a reader's batch size each; return how many were merged.

    Readers use a merged file instead of its sources as soon as it exists. The sources stay for the grace time, for
    readers that have already listed the folder; a slower reader may miss them and must start again. Files are merged
    only if they have the same columns, and if replay has proven all or none of them. A merged file is never merged
    again. If two processes compact at the same time, one does nothing.

    Args:
        state: the project's state folder.
        now_us: the project's clock; predictions of its day and later are not merged.
        grace_s: seconds; longer than any reader needs.
        clock: seconds since 1970, as in the files' timestamps.

    Raises:
        StoreError: the disk refused the write, or a file is missing or altered; nothing is lost.
    """
    folder = state / FOLDER
    if not folder.is_dir():
        return 0
    with try_lock(folder) as is_alone:
        if not is_alone:
            return 0
        Inventory(folder).files()
        listing = FileListing.of(folder)
        replaced = {name: merged_from(folder / name) for name in listing.merged_files_with_sources()}
        _mark_merged_proven(state, replaced)
        _delete_merged_sources(folder, listing, replaced, clock() - grace_s)
        sources, merged = {name for names in replaced.values() for name in names}, 0
        with suppress(FileExistsError, FileNotFoundError):  # another machine merges, or deletes old files
            for group in _merges(state, listing, sources, now_us // DAY_US * DAY_US):
                merged += len(group.names)
        return merged


def _mark_merged_proven(state: ProjectState, replaced: Mapping[str, Collection[str]]) -> None:
    """Mark merged files as proven if all their sources are: a kill may have prevented it."""
    proven = proven_files(state)
    if proven:
        # This also drops names of deleted files, so that no new file with such a name counts as proven.
        add_proven(state, [name for name, sources in replaced.items() if proven.issuperset(sources)])


def _delete_merged_sources(
    folder: Path, listing: FileListing, replaced: Mapping[str, Collection[str]], before_s: float
) -> None:
    existing = set(listing.names)
    try:
        # A source may be deleted only after the name of the merged file is durable.
        sync_folder(folder)
        for name, sources in replaced.items():
            if _is_old(folder / name, before_s):
                sources_left = sorted(existing.intersection(sources))
                Inventory(folder).remove_entries(sources_left)
                for source in sources_left:
                    (folder / source).unlink(missing_ok=True)
        for path in folder.glob("*.tmp"):
            if _is_old(path, before_s):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error


def _is_old(path: Path, before_s: float) -> bool:
    # The change time is when it got its name; its rows may be much older.
    with suppress(FileNotFoundError):
        return path.stat().st_ctime <= before_s
    return False


def _merges(
    state: ProjectState, listing: FileListing, replaced: Collection[str], before_us: int
) -> Iterator[_MergeGroup]:
    """Merge group after group, and yield each."""
    folder, proven = state / FOLDER, proven_files(state)
    for day in sorted(day for day in listing.written if day < before_us):
        names = [name for name in listing.written[day] if name not in replaced]
        first = max(listing.merged.get(day, {}), default=-1) + 1
        for number, group in enumerate(_groups(folder, names, proven), first):
            path = folder / merged_name(day, number)
            _merge(folder, group.names, path)
            if group.is_proven:
                add_proven(state, [path.name])
            yield group


def _groups(folder: Path, names: Sequence[str], proven: Collection[str]) -> Iterator[_MergeGroup]:
    """Yield the groups to merge of one day: neighbours with the same columns, all proven or none."""
    if len(names) < _FEWEST:
        return
    open_groups: dict[tuple[bool, pa.Schema], _MergeGroup] = {}
    for name in names:
        rows, schema = _read_footer(folder / name)
        is_proven = name in proven
        group = open_groups.get((is_proven, schema))
        if group is None or group.rows + rows > BATCH_ROWS:
            if group is not None and len(group.names) >= _FEWEST:
                yield group
            group = open_groups[is_proven, schema] = _MergeGroup(is_proven=is_proven)
        group.names.append(name)
        group.rows += rows
    yield from (group for group in open_groups.values() if len(group.names) >= _FEWEST)


def _read_footer(path: Path) -> tuple[int, pa.Schema]:
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata.num_rows, file.schema_arrow.remove_metadata()
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _corrupt_error(path, error) from error


def _merge(folder: Path, names: Sequence[str], path: Path) -> None:
    inventory = Inventory(folder)
    inventory.verify_all(folder / name for name in names)
    rows = pa.concat_tables([_read(folder / name) for name in names])
    sink = pa.BufferOutputStream()
    write_rows(add_source_names(rows, list(names)), sink)
    create_durable(path, sink.getvalue())
    add_to_inventory(inventory, path, rows.num_rows)


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(use_threads=False).replace_schema_metadata()
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _corrupt_error(path, error) from error


def _corrupt_error(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"prediction log file {path.name!r}", f"cannot be read: {error}", fix="remove or restore the corrupt file"
    )
