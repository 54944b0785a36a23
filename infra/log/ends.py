"""When the applying of each position of an event log ended (SEMANTICS 2.6).

``ends.bin`` holds records of a fixed size, in the order in which they were written. A power cut may lose the newest
ones: nothing waits for the disk here.
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
from skewless.infra.log.inventory import Inventory, damaged, missing
from skewless.infra.log.manifest import Manifest
from skewless.infra.storage.durable import exclusive, refused, sync_folder, write_durable

KNOWN_AT = "__known_at"
NAME = "ends.bin"

_RECORD = struct.Struct("<qqq")
_SUM = struct.Struct("<I")
_SIZE = _RECORD.size + _SUM.size
_FIELDS = np.dtype([("first", "<i8"), ("last", "<i8"), ("ended_us", "<i8")])
_STORED = np.dtype([*((name, "<i8") for name in _FIELDS.names or ()), ("sum", "<u4")])

Records = npt.NDArray[Any]


class LastEnd(NamedTuple):
    """The last position whose end is recorded, and how much of the file has been read for it.

    Args:
        last: -1: none.
        file: inode of the file.
        size: bytes of it that were read.
    """

    last: int = -1
    file: int = 0
    size: int = 0


class EndsFile:
    """The records of one log; any process may write them.

    Args:
        root: of the logs.
        partition: whose ends they are.
    """

    def __init__(self, root: Path, partition: str) -> None:
        folder = root / partition
        self._inventory = Inventory(root, partition)
        self._folder = folder
        self._path = folder / NAME
        self._lock = folder / ".ends.lock"

    def record(self, first: int, last: int, ended_us: int) -> None:
        """Note when the applying of positions ``first`` to ``last`` ended; does not wait for the disk.

        Raises:
            StoreError: the disk refused.
        """
        body = _RECORD.pack(first, last, ended_us)
        try:
            # The lock keeps a compaction from replacing the file between the open and the write.
            with exclusive(self._lock):
                self._add(body + _SUM.pack(zlib.crc32(body)))
        except OSError as error:
            raise refused(self._path, error) from error

    def read(self) -> Records:
        """Return all whole records, fields first, last and ended_us, in the order in which they were written.

        Raises:
            StoreError: the file is missing, damaged or cannot be read.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError as error:
            if NAME in self._inventory.notes():
                raise missing(self._path) from error
            return np.empty(0, _FIELDS)
        except OSError as error:
            raise refused(self._path, error) from error
        records, is_whole = _decoded(data)
        if not is_whole:
            raise damaged(self._path, "a record is not what was written")
        return records

    def last(self, before: LastEnd) -> LastEnd:
        """Return the last position that any record names, reading only what was added since ``before``.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if before.file == stat.st_ino and before.size == stat.st_size:
                    return before
                start = before.size if before.file == stat.st_ino and before.size <= stat.st_size else 0
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return before
        except OSError as error:
            raise refused(self._path, error) from error
        last = int(_decoded(data)[0]["last"].max(initial=before.last))
        return LastEnd(last=last, file=stat.st_ino, size=start + len(data) // _SIZE * _SIZE)

    def keep(self, wanted: Callable[[Records], npt.NDArray[np.bool_]]) -> None:
        """Rewrite the file with the records for which ``wanted`` is true; nothing happens if that is all.

        Raises:
            StoreError: the disk refused; the file is as it was.
        """
        try:
            with exclusive(self._lock):
                records = self.read()
                chosen = wanted(records)
                if not chosen.all():
                    self._replace(records[chosen])
        except OSError as error:
            raise refused(self._path, error) from error

    def sync(self) -> None:
        """Wait until the disk has what was recorded.

        Raises:
            StoreError: the disk refused.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            raise refused(self._path, error) from error
        finally:
            os.close(descriptor)

    def _add(self, record: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            end = _whole(descriptor)
            if os.fstat(descriptor).st_size != end:
                os.ftruncate(descriptor, end)
            os.pwrite(descriptor, record, end)
        finally:
            os.close(descriptor)
        if not end:
            self._inventory.expect(NAME)

    def _replace(self, records: Records) -> None:
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        write_durable(temporary, _encoded(records))
        try:
            # What stands in compacted files alone must be durable there first.
            sync_folder(self._folder)
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)


def first_cover(records: Records) -> Records:
    """Return disjoint, growing records: a position belongs to the first record that covers it.

    >>> first_cover(np.array([(5, 9, 70), (0, 7, 80)], _FIELDS)).tolist()
    [(0, 4, 80), (5, 9, 70)]
    """
    if not len(records) or bool((records["first"][1:] > records["last"][:-1]).all()):
        return records
    edges = np.unique(np.concatenate([records["first"], records["last"] + 1]))
    owner = np.full(len(edges) - 1, -1)
    starts, stops = np.searchsorted(edges, records["first"]), np.searchsorted(edges, records["last"] + 1)
    for i in reversed(range(len(records))):
        owner[starts[i] : stops[i]] = i
    begins = np.flatnonzero(np.diff(owner, prepend=-2))
    ends = np.append(begins[1:], len(owner))
    owned = owner[begins] >= 0
    result: Records = records[owner[begins[owned]]]
    result["first"], result["last"] = edges[begins[owned]], edges[ends[owned]] - 1
    return result


def baked(manifest: Manifest) -> Records:
    """Return the positions whose end stands in compacted files, as records that ended at 0.

    >>> from skewless.infra.log.manifest import Gap, FileRange
    >>> span = FileRange(path=Path("c"), first=0, last=9)
    >>> baked(Manifest(spans=(span,), gaps=(Gap(first=3, last=4),))).tolist()
    [(0, 2, 0), (5, 9, 0)]
    """
    starts = [0, *(gap.last + 1 for gap in manifest.gaps)]
    stops = [*(gap.first - 1 for gap in manifest.gaps), manifest.end]
    return np.array([(first, last, 0) for first, last in zip(starts, stops, strict=True) if first <= last], _FIELDS)


def unbaked(records: Records, manifest: Manifest) -> npt.NDArray[np.bool_]:
    """Return which records say more than the compacted files do."""
    gaps = np.array([(gap.first, gap.last, 0) for gap in manifest.gaps], _FIELDS)
    after = np.searchsorted(gaps["last"], records["first"])
    in_gap = np.searchsorted(gaps["first"], records["last"], side="right") > after
    return np.asarray((records["last"] > manifest.end) | in_gap, np.bool_)


def as_table(records: Records) -> pa.Table:
    """Return records as a table of int64 columns first, last, ended_us."""
    return pa.table({name: np.ascontiguousarray(records[name], np.int64) for name in _FIELDS.names or ()})


def with_known_at(rows: pa.Table, ends: pa.Table) -> pa.Table:
    """Return rows of a log with ``__known_at``, int64 microseconds; null where no record covers the position.

    Args:
        rows: they have ``__seq``. Where they have ``__known_at`` already, only its nulls are filled.
        ends: disjoint, growing; columns first, last, ended_us.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - a command that changes nothing does without

    seq = rows[SEQ].to_numpy()
    first, last, ended = (ends[name].to_numpy() for name in _FIELDS.names or ())
    at = np.searchsorted(first, seq, side="right") - 1
    found = at >= 0
    found[found] = seq[found] <= last[at[found]]
    values = np.zeros(len(seq), np.int64)
    values[found] = ended[at[found]]
    known = pa.chunked_array([pa.array(values, mask=~found)])
    if KNOWN_AT not in rows.column_names:
        return rows.append_column(KNOWN_AT, known)
    place = rows.schema.get_field_index(KNOWN_AT)
    return rows.set_column(place, KNOWN_AT, pc.coalesce(rows[KNOWN_AT], known))


def _whole(descriptor: int) -> int:
    # Bytes up to the last whole record: behind it stands what a killed writer left.
    count = os.fstat(descriptor).st_size // _SIZE
    while count and not _is_whole(os.pread(descriptor, _SIZE, (count - 1) * _SIZE)):
        count -= 1
    return count * _SIZE


def _is_whole(record: bytes) -> bool:
    return record[_RECORD.size :] == _SUM.pack(zlib.crc32(record[: _RECORD.size]))


def _decoded(data: bytes) -> tuple[Records, bool]:
    """Return the whole records, and whether those that are not are the last: what a power cut or a kill leaves."""
    count = len(data) // _SIZE
    stored = np.frombuffer(data, _STORED, count)
    sums = [zlib.crc32(data[at : at + _RECORD.size]) for at in range(0, count * _SIZE, _SIZE)]
    valid = stored["sum"] == np.array(sums, np.uint32)
    whole = stored[valid]
    records = np.empty(len(whole), _FIELDS)
    for name in _FIELDS.names or ():
        records[name] = whole[name]
    return records, bool(valid[: len(whole)].all())


def _encoded(records: Records) -> bytes:
    bodies = (_RECORD.pack(*record) for record in records.tolist())
    return b"".join(body + _SUM.pack(zlib.crc32(body)) for body in bodies)
