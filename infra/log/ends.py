"""Records when each position of an event log was completely applied (SEMANTICS 2.6).

``ends.bin`` holds records of a fixed size, in the order of writing. Writes are not synced, so a power cut may lose the
latest ones.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.infra.log.accepted import SEQ
from skewless.infra.log.inventory import Inventory, corrupt_file_error, missing_file_error
from skewless.infra.log.manifest import Manifest
from skewless.infra.storage.durable import disk_error, hold_lock, sync_folder, write_durable

KNOWN_AT = "__known_at"
NAME = "ends.bin"

_RECORD = struct.Struct("<qqq")
_SUM = struct.Struct("<I")
_SIZE = _RECORD.size + _SUM.size
_FIELDS = np.dtype([("first", "<i8"), ("last", "<i8"), ("ended_us", "<i8")])
_STORED = np.dtype([*((name, "<i8") for name in _FIELDS.names or ()), ("sum", "<u4")])

Records = npt.NDArray[Any]


class LastEnd(NamedTuple):
    """The last position with a recorded end, and how much of the file was read to find it.

    Args:
        last: -1: none.
        file: inode of the file.
        size: bytes that were read.
    """

    last: int = -1
    file: int = 0
    size: int = 0


class EndsFile:
    """The end records of one log; any process may write them.

    Args:
        root: folder of all logs.
        partition: of the log.
    """

    def __init__(self, root: Path, partition: str) -> None:
        folder = root / partition
        self._inventory = Inventory(root, partition)
        self._folder = folder
        self._path = folder / NAME
        self._lock = folder / ".ends.lock"

    def record(self, first: int, last: int, ended_us: int) -> None:
        """Record when positions ``first`` to ``last`` were completely applied, without waiting for the disk.

        Raises:
            StoreError: the file cannot be written.
        """
        body = _RECORD.pack(first, last, ended_us)
        try:
            # The lock stops compaction from replacing the file between open and write.
            with hold_lock(self._lock):
                self._append_record(body + _SUM.pack(zlib.crc32(body)))
        except OSError as error:
            raise disk_error(self._path, error) from error

    def read(self) -> Records:
        """Return all complete records with fields first, last and ended_us, in the order of writing.

        Raises:
            StoreError: the file is missing, corrupt or cannot be read.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError as error:
            if NAME in self._inventory.entries():
                raise missing_file_error(self._path) from error
            return np.empty(0, _FIELDS)
        except OSError as error:
            raise disk_error(self._path, error) from error
        records, is_complete = _decode(data)
        if not is_complete:
            raise corrupt_file_error(self._path, "a record has a wrong checksum")
        return records

    def last(self, previous: LastEnd) -> LastEnd:
        """Return the last position of any record; reads only bytes that were added since ``previous``.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if previous.file == stat.st_ino and previous.size == stat.st_size:
                    return previous
                start = previous.size if previous.file == stat.st_ino and previous.size <= stat.st_size else 0
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return previous
        except OSError as error:
            raise disk_error(self._path, error) from error
        last = int(_decode(data)[0]["last"].max(initial=previous.last))
        return LastEnd(last=last, file=stat.st_ino, size=start + len(data) // _SIZE * _SIZE)

    def filter_records(self, is_kept: Callable[[Records], npt.NDArray[np.bool_]]) -> None:
        """Rewrite the file with the records for which ``is_kept`` is true; does nothing if that is all of them.

        Raises:
            StoreError: the file cannot be written and is unchanged.
        """
        try:
            with hold_lock(self._lock):
                records = self.read()
                mask = is_kept(records)
                if not mask.all():
                    self._replace(records[mask])
        except OSError as error:
            raise disk_error(self._path, error) from error

    def sync(self) -> None:
        """Wait until all records are on disk.

        Raises:
            StoreError: the file cannot be synced.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            raise disk_error(self._path, error) from error
        finally:
            os.close(descriptor)

    def _append_record(self, record: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            end = _complete_size(descriptor)
            if os.fstat(descriptor).st_size != end:
                os.ftruncate(descriptor, end)
            os.pwrite(descriptor, record, end)
        finally:
            os.close(descriptor)
        if not end:
            self._inventory.expect(NAME)

    def _replace(self, records: Records) -> None:
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        write_durable(temporary, _encode(records))
        try:
            # Ends that exist only in compacted files must be durable there first.
            sync_folder(self._folder)
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)


def resolve_overlaps(records: Records) -> Records:
    """Return disjoint records in ascending order: each position belongs to the first record that covers it.

    >>> resolve_overlaps(np.array([(5, 9, 70), (0, 7, 80)], _FIELDS)).tolist()
    [(0, 4, 80), (5, 9, 70)]
    """
    if not len(records) or bool((records["first"][1:] > records["last"][:-1]).all()):
        return records
    # Splits the positions at all record bounds, and assigns each interval to one record.
    edges = np.unique(np.concatenate([records["first"], records["last"] + 1]))
    owner = np.full(len(edges) - 1, -1)
    starts, stops = np.searchsorted(edges, records["first"]), np.searchsorted(edges, records["last"] + 1)
    # In reverse, so that earlier records overwrite later ones.
    for i in reversed(range(len(records))):
        owner[starts[i] : stops[i]] = i
    begins = np.flatnonzero(np.diff(owner, prepend=-2))
    ends = np.append(begins[1:], len(owner))
    is_owned = owner[begins] >= 0
    result: Records = records[owner[begins[is_owned]]]
    result["first"], result["last"] = edges[begins[is_owned]], edges[ends[is_owned]] - 1
    return result


def compacted_ends(manifest: Manifest) -> Records:
    """Return the positions whose end is stored in compacted files, as records with an end of 0.

    >>> from skewless.infra.log.manifest import Gap, FileRange
    >>> span = FileRange(path=Path("c"), first=0, last=9)
    >>> compacted_ends(Manifest(spans=(span,), gaps=(Gap(first=3, last=4),))).tolist()
    [(0, 2, 0), (5, 9, 0)]
    """
    starts = [0, *(gap.last + 1 for gap in manifest.gaps)]
    stops = [*(gap.first - 1 for gap in manifest.gaps), manifest.end]
    return np.array([(first, last, 0) for first, last in zip(starts, stops, strict=True) if first <= last], _FIELDS)


def select_uncompacted(records: Records, manifest: Manifest) -> npt.NDArray[np.bool_]:
    """Return which records cover positions whose end is not stored in compacted files."""
    gaps = np.array([(gap.first, gap.last, 0) for gap in manifest.gaps], _FIELDS)
    after = np.searchsorted(gaps["last"], records["first"])
    in_gap = np.searchsorted(gaps["first"], records["last"], side="right") > after
    return np.asarray((records["last"] > manifest.end) | in_gap, np.bool_)


def ends_table(records: Records) -> pa.Table:
    """Return records as a table with int64 columns first, last, ended_us."""
    columns = {name: np.ascontiguousarray(records[name], np.int64) for name in _FIELDS.names or ()}
    # From buffers: pa.array imports pandas, which takes longer than a command that only reads this.
    arrays = [pa.Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)]) for data in columns.values()]
    return pa.table(arrays, names=list(columns))


def add_known_at(rows: pa.Table, ends: pa.Table) -> pa.Table:
    """Return log rows with ``__known_at``, int64 microseconds; null if no record covers the position.

    Args:
        rows: with ``__seq``. If they already have ``__known_at``, only its nulls are filled.
        ends: disjoint, in ascending order; columns first, last, ended_us.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - a command that changes nothing does without

    seq = rows[SEQ].to_numpy()
    first, last, ended = (ends[name].to_numpy() for name in _FIELDS.names or ())
    at = np.searchsorted(first, seq, side="right") - 1
    is_covered = at >= 0
    is_covered[is_covered] = seq[is_covered] <= last[at[is_covered]]
    values = np.zeros(len(seq), np.int64)
    values[is_covered] = ended[at[is_covered]]
    known = pa.chunked_array([pa.array(values, mask=~is_covered)])
    if KNOWN_AT not in rows.column_names:
        return rows.append_column(KNOWN_AT, known)
    place = rows.schema.get_field_index(KNOWN_AT)
    return rows.set_column(place, KNOWN_AT, pc.coalesce(rows[KNOWN_AT], known))


def _complete_size(descriptor: int) -> int:
    # Return the size up to the last complete record: a killed writer may have left a partial one after it.
    count = os.fstat(descriptor).st_size // _SIZE
    while count and not _is_complete(os.pread(descriptor, _SIZE, (count - 1) * _SIZE)):
        count -= 1
    return count * _SIZE


def _is_complete(record: bytes) -> bool:
    return record[_RECORD.size :] == _SUM.pack(zlib.crc32(record[: _RECORD.size]))


def _decode(data: bytes) -> tuple[Records, bool]:
    """Return the complete records, and whether invalid ones come only at the end, as after a power cut or a kill."""
    count = len(data) // _SIZE
    stored = np.frombuffer(data, _STORED, count)
    sums = [zlib.crc32(data[at : at + _RECORD.size]) for at in range(0, count * _SIZE, _SIZE)]
    valid = stored["sum"] == np.array(sums, np.uint32)
    complete = stored[valid]
    records = np.empty(len(complete), _FIELDS)
    for name in _FIELDS.names or ():
        records[name] = complete[name]
    return records, bool(valid[: len(complete)].all())


def _encode(records: Records) -> bytes:
    bodies = (_RECORD.pack(*record) for record in records.tolist())
    return b"".join(body + _SUM.pack(zlib.crc32(body)) for body in bodies)
