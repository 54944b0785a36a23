"""Merges the small files of the prediction log, a UTC day at a time; a kill at any point changes no answer.

The order of the durable steps: the merged file, which names what it was merged from; that it is proven, where all of
those were; and, a run after the grace time, the removal of what it was merged from. Its name is claimed by ``link``,
so of two that merge a day at once on two machines one gives way.
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
    DAY_US,
    FOLDER,
    PIECE_ROWS,
    FileListing,
    add_proven,
    merged_from,
    merged_name,
    proven_files,
    with_sources,
    write_rows,
)
from skewless.infra.storage.durable import create_durable, disk_error, sync_folder, try_lock

_FEWEST = 2


@dataclass(kw_only=True)
class _MergeGroup:
    """Files that are to become one."""

    is_proven: bool
    names: list[str] = field(default_factory=list)
    rows: int = 0


def compact(state: Path, *, now_us: int, grace_s: float, clock: Callable[[], float] = time.time) -> int:
    """Merge the files of the days that are over, up to a reader's piece each; return how many were merged.

    Readers take a merged file in the place of its sources as soon as it stands. The sources stay for the grace time,
    for those who had listed the folder before; a reader that needs longer may miss them, and must begin again. Files
    are merged only if they have the same columns, and if replay has proven all of them or none. A merged file is
    never merged again. Of two at the same time one does nothing.

    Args:
        state: the project's state folder.
        now_us: the project's clock; what was predicted on its day, or is dated later, is left alone.
        grace_s: longer than anybody reads.
        clock: seconds since 1970, by which the disk dates files.

    Raises:
        StoreError: the disk refused, or a file is missing or altered; nothing is lost.
    """
    folder = state / FOLDER
    if not folder.is_dir():
        return 0
    with try_lock(folder) as is_alone:
        if not is_alone:
            return 0
        Inventory(folder).files()
        found = FileListing.of(folder)
        replaced = {name: merged_from(folder / name) for name in found.merged_beside_written()}
        _carry_over(state, replaced)
        _remove_due(folder, found, replaced, clock() - grace_s)
        hidden, merged = {name for names in replaced.values() for name in names}, 0
        with suppress(FileExistsError, FileNotFoundError):  # another machine merges, or removes what is too old
            for group in _merges(state, found, hidden, now_us // DAY_US * DAY_US):
                merged += len(group.names)
        return merged


def _carry_over(state: Path, replaced: Mapping[str, Collection[str]]) -> None:
    """Count merged files as proven whose sources all are: a kill may have come in between."""
    proven = proven_files(state)
    if proven:
        # Names of files that are gone are forgotten by this too, so that no new file bears one.
        add_proven(state, [name for name, sources in replaced.items() if proven.issuperset(sources)])


def _remove_due(folder: Path, found: FileListing, replaced: Mapping[str, Collection[str]], before_s: float) -> None:
    standing = set(found.names)
    try:
        # A file may only go when the name of what replaces it is durable.
        sync_folder(folder)
        for name, sources in replaced.items():
            if _is_old(folder / name, before_s):
                gone = sorted(standing.intersection(sources))
                Inventory(folder).remove_entries(gone)
                for source in gone:
                    (folder / source).unlink(missing_ok=True)
        for path in folder.glob("*.tmp"):
            if _is_old(path, before_s):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error


def _is_old(path: Path, before_s: float) -> bool:
    # The time at which it got its name: what it holds may have been written long before.
    with suppress(FileNotFoundError):
        return path.stat().st_ctime <= before_s
    return False


def _merges(state: Path, found: FileListing, replaced: Collection[str], before_us: int) -> Iterator[_MergeGroup]:
    """Merge group after group, and yield each."""
    folder, proven = state / FOLDER, proven_files(state)
    for day in sorted(day for day in found.written if day < before_us):
        names = [name for name in found.written[day] if name not in replaced]
        first = max(found.merged.get(day, {}), default=-1) + 1
        for number, group in enumerate(_groups(folder, names, proven), first):
            path = folder / merged_name(day, number)
            _merge(folder, group.names, path)
            if group.is_proven:
                add_proven(state, [path.name])
            yield group


def _groups(folder: Path, names: Sequence[str], proven: Collection[str]) -> Iterator[_MergeGroup]:
    """Yield what is to be merged of one day: neighbours of the same columns that are proven, or are not."""
    if len(names) < _FEWEST:
        return
    filling: dict[tuple[bool, pa.Schema], _MergeGroup] = {}
    for name in names:
        rows, schema = _described(folder / name)
        is_proven = name in proven
        group = filling.get((is_proven, schema))
        if group is None or group.rows + rows > PIECE_ROWS:
            if group is not None and len(group.names) >= _FEWEST:
                yield group
            group = filling[is_proven, schema] = _MergeGroup(is_proven=is_proven)
        group.names.append(name)
        group.rows += rows
    yield from (group for group in filling.values() if len(group.names) >= _FEWEST)


def _described(path: Path) -> tuple[int, pa.Schema]:
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata.num_rows, file.schema_arrow.remove_metadata()
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _merge(folder: Path, names: Sequence[str], path: Path) -> None:
    inventory = Inventory(folder)
    inventory.verify_all(folder / name for name in names)
    rows = pa.concat_tables([_read(folder / name) for name in names])
    sink = pa.BufferOutputStream()
    write_rows(with_sources(rows, list(names)), sink)
    create_durable(path, sink.getvalue())
    add_to_inventory(inventory, path, rows.num_rows)


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(use_threads=False).replace_schema_metadata()
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"prediction log file {path.name!r}", f"cannot be read: {error}", fix="remove or restore the damaged file"
    )
