"""Takes shipped files back into a log of predictions or outcomes whose list is an older state.

The rows of these logs have no positions: a shipped file is known by its writer and number, a row by its key columns.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.contract.status import BoolArray
from skewless.infra.log.catalog import Segment
from skewless.infra.log.log_columns import encode_columns
from skewless.infra.log.orphans import Orphan, describe_if_present, read_rows
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.recovery import Piece, copy_rows
from skewless.infra.log.spool import ShippedFiles
from skewless.infra.storage.objects import StoredObject
from skewless.infra.storage.project_state import ProjectState

_NAME = re.compile(r"[^/]+/(?P<at>\d{20})-(?P<writer>[0-9a-f]{12})-(?P<number>\d{6,})-[0-9a-f]{12}\.parquet")


class ShippedObject(NamedTuple):
    """An object that a shipper has stored; sorted as it was shipped."""

    writer: str
    number: int
    at_us: int
    name: str


class ShippedRows(NamedTuple):
    """Rows that a log lacks: those of a shipped object, or of a part of a merged one."""

    rows: int
    source: ShippedObject | tuple[Orphan, int, int]


def list_shipped(names: Sequence[str]) -> list[ShippedObject]:
    """Return the objects with the names of shipped files, in the order of each writer's numbers.

    >>> list_shipped(["outcomes/00001768478400123456-3f2a91c07b5d-000004-0123456789ab.parquet", "outcomes/x"])
    ... # doctest: +ELLIPSIS
    [ShippedObject(writer='3f2a91c07b5d', number=4, at_us=1768478400123456, name='outcomes/...')]
    """
    parts = [(_NAME.fullmatch(name), name) for name in names]
    return sorted(
        ShippedObject(part["writer"], int(part["number"]), int(part["at"]), name) for part, name in parts if part
    )


class SpoolRecovery:
    """Finds rows that a log lacks, and adds them.

    Args:
        state: of the project.
        partition: name of the log.
        keys: columns that identify a row.
        time: column with the time of a row.
        missing: names of listed objects that the storage does not have.
    """

    def __init__(
        self, state: ProjectState, partition: str, *, keys: Sequence[str], time: str, missing: Collection[str]
    ) -> None:
        self._log = PartitionLog(state, partition)
        self._shipped = ShippedFiles(state.database)
        self._keys = keys
        self._time = time
        self._missing = missing

    def recover(
        self, merged: Sequence[Orphan], objects: Sequence[ShippedObject], restored: Sequence[Piece], *, dry_run: bool
    ) -> Iterator[ShippedRows]:
        """Yield the rows that the log lacks, each once, after they were added.

        Args:
            merged: objects that compaction has written and that the log does not list.
            objects: of ``list_shipped`` that the log does not list.
            restored: parts of merged objects that have replaced, or would replace, segments.
            dry_run: add nothing.

        Raises:
            StoreError: database or storage failed; a later call continues.
        """
        found = [
            self._read_keys(part.orphan.stored).slice(part.first - part.orphan.first, part.rows) for part in restored
        ]
        for orphan in sorted(merged, key=lambda item: item.first):
            for first, last in self._find_lacking(orphan, found):
                if not dry_run:
                    self._append_part(orphan, first, last)
                yield ShippedRows(last - first + 1, (orphan, first, last))
            found.append(self._read_keys(orphan.stored))
        # An object has the rows of one file or of several, and the number of the last one. So an object of an
        # interrupted attempt has no other rows than the object that was shipped then, whose number is not lower.
        for item in sorted(objects, reverse=True):
            rows = self._recover_file(item, found, dry_run=dry_run)
            if rows:
                yield ShippedRows(rows, item)

    def _recover_file(self, item: ShippedObject, found: list[pa.Array], *, dry_run: bool) -> int:
        """Add an object unless the log has its rows; return the number of added rows."""
        if not self._shipped.is_new(item.writer, item.number):
            return 0
        stored = describe_if_present(self._log.storage, item.name)
        if stored is None:
            return 0
        path = self._log.storage.local_path(stored)
        try:
            schema, rows = pq.read_schema(path), int(pq.read_metadata(path).num_rows)
            keys = self._read_keys(stored)
            # A file is merged as a whole.
            is_merged = bool(rows and found and _is_in(keys, found).any())
        except (OSError, pa.ArrowException):
            return 0  # its shipping was interrupted, so the file was shipped again
        found.append(keys)
        if dry_run:
            return 0 if is_merged else rows
        with self._shipped.claim(item.writer, [item.number]) as is_new:
            if is_new and rows and not is_merged:
                self._append(stored, rows, schema, item.at_us)
        return rows if is_new and not is_merged else 0

    def _append_part(self, orphan: Orphan, first: int, last: int) -> None:
        times = pa.concat_tables(
            read_rows(self._log.storage, orphan, first, last, pa.schema([(self._time, pa.int64())]))
        )
        at_us = int(pc.max(times[self._time]).as_py() or 0)
        self._append(copy_rows(self._log, orphan, first, last), last - first + 1, orphan.schema, at_us)

    def _append(self, stored: StoredObject, rows: int, schema: pa.Schema, at_us: int) -> Segment:
        columns = "" if self._log.schema().names else encode_columns(schema)
        return self._log.catalog.append(
            self._log.partition, stored, rows, began_at=time.time(), at_us=at_us, columns=columns
        )

    def _find_lacking(self, orphan: Orphan, found: Sequence[pa.Array]) -> list[tuple[int, int]]:
        """Return ranges of positions of a merged object whose rows no segment has."""
        own = self._read_keys(orphan.stored)
        is_known = _is_in(own, found)
        for segment in self._log.segments():
            if segment.stored.name not in self._missing and not is_known.all():
                is_known |= _is_in(own, [self._read_keys(segment.stored)])
        edges = np.flatnonzero(np.diff(np.concatenate([[True], is_known, [True]]).astype(np.int8)))
        return [
            (orphan.first + int(start), orphan.first + int(end) - 1)
            for start, end in zip(edges[::2], edges[1::2], strict=True)
        ]

    def _read_keys(self, stored: StoredObject) -> pa.Array:
        rows = pq.read_table(self._log.storage.local_path(stored), columns=list(self._keys))
        texts = [rows[name].cast(pa.string()) for name in self._keys]
        return pc.binary_join_element_wise(*texts, "/").combine_chunks()


def _is_in(keys: pa.Array, others: Sequence[pa.Array]) -> BoolArray:
    result = np.zeros(len(keys), dtype=np.bool_)
    for other in others:
        result |= pc.is_in(keys, value_set=other).to_numpy(zero_copy_only=False)
    return result
