"""Parity of latest-value views: compares an entity's online row with the winner among the applied log rows.

A run writes rows before it moves the marker. So an online row may be newer than the winner up to the marker; then it
must equal the log row at its position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.keys import KeyCodec, marker_key
from skewless.contract.plan import View
from skewless.contract.rows import RowCodec, Versions, ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.key_samples import sample_row_keys
from skewless.infra.reads.offline.views import LogSnapshot, OfflineViews
from skewless.infra.reads.online.port import OnlineStore
from skewless.validation.parity_checker import BATCH_KEYS, ParityChecker, ParityResult, entity_of
from skewless.validation.parity_report import Mismatch, ParityFault

_ALWAYS = 2**62
_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class RowParity(ParityChecker):
    """Compares one latest-value view."""

    view: View

    def sample(self, n: int, seed: int) -> pa.Table:
        """See ``ParityChecker``."""
        return sample_row_keys(self.views.connection, self.view.keys, self.views.log(self.view).files(), n, seed)

    def check(self, keys: pa.Table) -> ParityResult:
        """See ``ParityChecker``."""
        columns = {name: keys[name].combine_chunks() for name in keys.column_names}
        names: list[bytes] = KeyCodec(self.project, self.view).pack(columns).to_pylist()
        stored, marker = self._read(names)
        result = ParityResult(
            keys=keys,
            names=names,
            stored=stored,
            available=np.full(len(names), marker is not None, dtype=np.bool_),
            faults={},
            at_us=self.clock.now_us(),
        )
        return result if marker is None else _RowComparison(self.view, self.views, result, marker).compare()

    def repair(self, result: ParityResult, store: OnlineStore) -> None:
        """See ``ParityChecker``."""
        rows = np.array(result.repairable, dtype=np.int64)
        # To the end of the log and not to the marker: a run may have written a newer row, which must not be replaced by
        # an older.
        end = self.views.log(self.view).next_seq()
        winners = _winners(self.view, self.views, result.keys.take(pa.array(rows)), end)
        rows, winners = rows[winners >= 0], winners[winners >= 0]
        if len(rows):
            read = self.views.read_positions(self.view, winners)
            packed = RowCodec(self.view).encode(read.versions, read.values, read.nulls)
            store.replace([result.names[row] for row in rows], [result.stored[row] for row in rows], packed)

    def _read(self, names: Sequence[bytes]) -> tuple[list[bytes | None], int | None]:
        """Return the rows, and the position up to which the log had certainly been applied to all of them."""
        mark = marker_key(self.project, self.view)
        stored: list[bytes | None] = []
        applied: int | None = None
        for first in range(0, len(names), BATCH_KEYS):
            batch = names[first : first + BATCH_KEYS]
            rows, (marker,) = self.reader.get_with_markers(batch, [mark])
            if marker is None or self.marker_history.find_lost([mark], [marker]):
                return [None] * len(names), None
            stored += rows
            # A marker only grows, so the smallest of all batches holds for every row.
            applied = marker.position if applied is None else min(applied, marker.position)
        return stored, applied


class _RowComparison:
    """One comparison of rows with the log."""

    def __init__(self, view: View, views: OfflineViews, result: ParityResult, marker: int) -> None:
        self._view, self._checked = view, result
        log: PartitionLog = views.log(view)
        # After the rows were read: the log has each of their positions, unless another log filled the store.
        self._end = log.next_seq()
        codec = RowCodec(view)
        self._is_valid = codec.find_intact(result.stored)
        self._online = codec.decode(result.stored)
        self._seq = self._online.versions.seq.astype(np.int64)
        self._exists = np.array([row is not None for row in result.stored], dtype=np.bool_) & self._is_valid
        self._winner = _winners(view, views, result.keys, min(marker + 1, self._end))
        self._marker, self._is_other_log = marker, marker >= self._end
        positions = np.where(self._exists & (self._seq < self._end), self._seq, -1)
        self._winner_read = views.read_positions(view, self._winner)
        self._log_read = views.read_positions(view, positions)
        self._log_keys = views.read_keys(view, positions)

    def compare(self) -> ParityResult:
        """Return the result with all mismatches."""
        result = self._checked
        faults = {row: fault for row in range(result.keys.num_rows) if (fault := self._find_mismatch(row)) is not None}
        return replace(result, faults=faults)

    def _find_mismatch(self, row: int) -> Mismatch | None:
        # The order matters: a corrupt row has no version, and a row beyond the log has no log row to compare with.
        if not self._is_valid[row]:
            value = self._checked.stored[row] or b""
            return self._mismatch(row, ParityFault.DAMAGED, detail=f"{len(value):,} bytes, {value[:_BYTES].hex()}")
        if not self._exists[row]:
            if self._winner[row] < 0:
                return self._find_other_log(row)
            return self._mismatch(row, ParityFault.LOST_ROW, detail=f"log position {self._winner[row]} was applied")
        if self._seq[row] >= self._end:
            return self._mismatch(row, ParityFault.AHEAD, detail=f"the log ends at {self._end - 1}")
        if _rank(self._online.versions, row) < _rank(self._winner_read.versions, row):
            return self._mismatch(row, ParityFault.STALE_ROW, detail=f"log position {self._winner[row]} was applied")
        return self._compare_values(row) or self._find_other_log(row)

    def _find_other_log(self, row: int) -> Mismatch | None:
        # No run continues after such a marker, so the view stays as it is, equal or not.
        detail = f"the log ends at {self._end - 1}, the store's marker is at {self._marker}"
        return self._mismatch(row, ParityFault.AHEAD, detail=detail) if self._is_other_log else None

    def _compare_values(self, row: int) -> Mismatch | None:
        entity = entity_of(self._checked.keys, row)
        if entity_of(self._log_keys, row) != entity:
            return self._mismatch(row, ParityFault.VALUE, detail="its log position belongs to another entity")
        if _origin(self._online.versions, row) != _origin(self._log_read.versions, row):
            return self._mismatch(row, ParityFault.VALUE, detail="its times differ from the log row's")
        for column in self._view.features:
            online, log = (_read_cell(read, column.name, row) for read in (self._online, self._log_read))
            if _comparable(online) != _comparable(log):
                return self._mismatch(
                    row, ParityFault.VALUE, feature=column.name, online=_to_plain(online), log=_to_plain(log)
                )
        return None

    def _mismatch(self, row: int, cause: ParityFault, **values: Any) -> Mismatch:  # noqa: ANN401 - of Mismatch
        return Mismatch(
            view=self._view.name,
            cause=cause,
            entity=entity_of(self._checked.keys, row),
            positions={self._view.partition: int(self._seq[row])} if self._exists[row] else {},
            # A row beyond the end of the log was written from another log.
            repairable=not self._is_other_log and cause is not ParityFault.AHEAD and bool(self._winner[row] >= 0),
            **values,
        )


def _winners(view: View, views: OfflineViews, keys: pa.Table, end: int) -> Int64Array:
    """Return the position of the winning row of each key before ``end``; -1: none."""
    entities = keys.append_column(TIME, int64_array(np.full(keys.num_rows, _ALWAYS, dtype=np.int64)))
    return views.find_positions(view, entities, "event_time", LogSnapshot(end=end, run_id=0))


def _rank(versions: Versions, row: int) -> tuple[int, int, int]:
    seq = int(versions.seq[row])
    if seq < 0:
        return (-_ALWAYS * 2, -_ALWAYS * 2, -1)
    return (int(versions.event_ts[row]), int(versions.created_ts[row]), seq)


def _origin(versions: Versions, row: int) -> tuple[int, int, int, bool]:
    times = (int(versions.event_ts[row]), int(versions.created_ts[row]), int(versions.run_id[row]))
    return (*times, bool(versions.tombstone[row]))


def _read_cell(read: ViewRead, name: str, row: int) -> Any:  # noqa: ANN401 - numpy's scalars, text, bytes
    null: BoolArray = read.nulls[name]
    return None if null[row] else read.values[name][row]


def _comparable(value: Any) -> object:  # noqa: ANN401 - as above
    # Bits, so that -0.0 and 0.0 differ. All NaNs are one missing value (SEMANTICS 2.5).
    if isinstance(value, np.floating):
        return "nan" if np.isnan(value) else value.tobytes()
    return value


def _to_plain(value: Any) -> object:  # noqa: ANN401 - as above
    if isinstance(value, bytes):
        return value.hex()
    return value.item() if isinstance(value, np.generic) else value
