"""Parity of latest-value views: the online row of an entity against the winner among the log rows that were applied.

A run that goes on puts rows before it moves the marker, so a row may be newer than the winner up to the marker; then
it must be the log row that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.clock import Clock
from skewless.contract.keys import KeyCodec, marker_key
from skewless.contract.plan import View
from skewless.contract.rows import RowCodec, Versions, ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.log.accepted import AcceptedLog
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.key_samples import sample_row_keys
from skewless.infra.offline.views import LogSnapshot, OfflineViews
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import BlockingOnlineReader, OnlineStore
from skewless.validation.parity_checker import BATCH_KEYS, ParityResult, entity_of
from skewless.validation.parity_report import Mismatch, ParityFault

_ALWAYS = 2**62
_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class RowParity:
    """Compares one latest-value view."""

    project: str
    view: View
    views: OfflineViews
    reader: BlockingOnlineReader
    marker_history: MarkerHistory
    clock: Clock

    def sample(self, n: int, seed: int) -> pa.Table:
        """See ``ParityChecker``."""
        return sample_row_keys(self.views.connection, self.view.keys, self.views.log(self.view).files(), n, seed)

    def check(self, keys: pa.Table) -> ParityResult:
        """See ``ParityChecker``."""
        columns = {name: keys[name].combine_chunks() for name in keys.column_names}
        names: list[bytes] = KeyCodec(self.project, self.view).pack(columns).to_pylist()
        stored, marker = self._read(names)
        checked = ParityResult(
            keys=keys,
            names=names,
            stored=stored,
            available=np.full(len(names), marker is not None, dtype=np.bool_),
            faults={},
            at_us=self.clock.now_us(),
        )
        return checked if marker is None else _RowComparison(self.view, self.views, checked, marker).judged()

    def repair(self, checked: ParityResult, store: OnlineStore) -> None:
        """See ``ParityChecker``."""
        rows = np.array(checked.repairable, dtype=np.int64)
        end = self.views.log(self.view).next_seq()
        winner = _winners(self.view, self.views, checked.keys.take(pa.array(rows)), end)
        rows, winner = rows[winner >= 0], winner[winner >= 0]
        if len(rows):
            read = self.views.read_positions(self.view, winner)
            packed = RowCodec(self.view).encode(read.versions, read.values, read.nulls)
            store.replace([checked.names[row] for row in rows], [checked.stored[row] for row in rows], packed)

    def _read(self, names: Sequence[bytes]) -> tuple[list[bytes | None], int | None]:
        """Return the rows, and the position up to which the log had surely been applied to each of them."""
        mark = marker_key(self.project, self.view)
        stored: list[bytes | None] = []
        least: int | None = None
        for first in range(0, len(names), BATCH_KEYS):
            some = names[first : first + BATCH_KEYS]
            rows, (found,) = self.reader.get_with_markers(some, [mark])
            if found is None or self.marker_history.find_lost([mark], [found]):
                return [None] * len(names), None
            stored += rows
            least = found.position if least is None else min(least, found.position)
        return stored, least


class _RowComparison:
    """One comparison of rows with the log."""

    def __init__(self, view: View, views: OfflineViews, checked: ParityResult, marker: int) -> None:
        self._view, self._checked = view, checked
        log: AcceptedLog = views.log(view)
        self._end = log.next_seq()
        codec = RowCodec(view)
        self._sound = codec.find_intact(checked.stored)
        self._online = codec.decode(checked.stored)
        self._seq = self._online.versions.seq.astype(np.int64)
        self._there = np.array([row is not None for row in checked.stored], dtype=np.bool_) & self._sound
        self._winner = _winners(view, views, checked.keys, min(marker + 1, self._end))
        self._foreign = marker >= self._end
        named = np.where(self._there & (self._seq < self._end), self._seq, -1)
        self._best, self._log = views.read_positions(view, self._winner), views.read_positions(view, named)
        self._keys_named = views.read_keys(view, named)

    def judged(self) -> ParityResult:
        """Return what was read with its faults."""
        checked = self._checked
        found = {row: fault for row in range(checked.keys.num_rows) if (fault := self._fault(row)) is not None}
        return replace(checked, faults=found)

    def _fault(self, row: int) -> Mismatch | None:
        if not self._sound[row]:
            held = self._checked.stored[row] or b""
            return self._mismatch(row, ParityFault.DAMAGED, detail=f"{len(held):,} bytes, {held[:_BYTES].hex()}")
        if not self._there[row]:
            if self._winner[row] < 0:
                return None
            return self._mismatch(row, ParityFault.LOST_ROW, detail=f"log position {self._winner[row]} was applied")
        if self._seq[row] >= self._end:
            return self._mismatch(row, ParityFault.AHEAD, detail=f"the log ends at {self._end - 1}")
        if _rank(self._online.versions, row) < _rank(self._best.versions, row):
            return self._mismatch(row, ParityFault.STALE_ROW, detail=f"log position {self._winner[row]} was applied")
        return self._value(row)

    def _value(self, row: int) -> Mismatch | None:
        entity = entity_of(self._checked.keys, row)
        if entity_of(self._keys_named, row) != entity:
            return self._mismatch(row, ParityFault.VALUE, detail="the log position that it names is another entity's")
        if _origin(self._online.versions, row) != _origin(self._log.versions, row):
            return self._mismatch(row, ParityFault.VALUE, detail="its times are not those of the log row")
        for column in self._view.features:
            online, log = (_cell(read, column.name, row) for read in (self._online, self._log))
            if _bits(online) != _bits(log):
                return self._mismatch(
                    row, ParityFault.VALUE, feature=column.name, online=_plain(online), log=_plain(log)
                )
        return None

    def _mismatch(
        self,
        row: int,
        cause: ParityFault,
        *,
        feature: str | None = None,
        online: object = None,
        log: object = None,
        detail: str = "",
    ) -> Mismatch:
        return Mismatch(
            view=self._view.name,
            cause=cause,
            entity=entity_of(self._checked.keys, row),
            feature=feature,
            online=online,
            log=log,
            positions={self._view.partition: int(self._seq[row])} if self._there[row] else {},
            detail=detail,
            # A row that is newer than the log was put by somebody with another log.
            repairable=not self._foreign and cause is not ParityFault.AHEAD and bool(self._winner[row] >= 0),
        )


def _winners(view: View, views: OfflineViews, keys: pa.Table, end: int) -> Int64Array:
    """Return the position of the newest row of each key before a position; -1: none."""
    asked = keys.append_column(TIME, pa.array(np.full(keys.num_rows, _ALWAYS, dtype=np.int64)))
    return views.find_positions(view, asked, "event_time", LogSnapshot(end=end, run_id=0))


def _rank(versions: Versions, row: int) -> tuple[int, int, int]:
    seq = int(versions.seq[row])
    if seq < 0:
        return (-_ALWAYS * 2, -_ALWAYS * 2, -1)
    return (int(versions.event_ts[row]), int(versions.created_ts[row]), seq)


def _origin(versions: Versions, row: int) -> tuple[int, int, int, bool]:
    times = (int(versions.event_ts[row]), int(versions.created_ts[row]), int(versions.run_id[row]))
    return (*times, bool(versions.tombstone[row]))


def _cell(read: ViewRead, name: str, row: int) -> Any:  # noqa: ANN401 - numpy's scalars, text, bytes
    null: BoolArray = read.nulls[name]
    return None if null[row] else read.values[name][row]


def _bits(value: Any) -> object:  # noqa: ANN401 - as above
    if isinstance(value, np.floating):
        return "nan" if np.isnan(value) else value.tobytes()
    return value


def _plain(value: Any) -> object:  # noqa: ANN401 - as above
    if isinstance(value, bytes):
        return value.hex()
    return value.item() if isinstance(value, np.generic) else value
