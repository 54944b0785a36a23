"""The rows of one feature view in a test: packed, ranked and read like those of the online store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import find_nulls
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.keys import KeyValue
from skewless.contract.plan import View
from skewless.contract.rows import NO_TIME, RANK_BYTES, RowCodec, Versions, ViewRead
from skewless.infra.offline import arrays
from skewless.infra.streams.decode import convert_values
from skewless.testing.plain_values import json_row


@dataclass(frozen=True, kw_only=True)
class GivenRow:
    """One row of a view.

    Args:
        values: as the test gave them.
        key: in the plan's types.
        event_us: event time, microseconds.
        known_us: from when on it is known, microseconds.
        packed: as the online store holds it.
    """

    values: Mapping[str, Any]
    key: tuple[KeyValue | None, ...]
    event_us: int
    known_us: int
    packed: bytes


class RowRecords:
    """The rows of one view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.rows: list[GivenRow] = []
        self._codec = RowCodec(view)

    def add(self, row: Mapping[str, Any], known_us: int | None) -> None:
        """Accept one row: keys, features, event time and, where the source has them, created time and tombstone.

        Args:
            row: features that are not given are null.
            known_us: before which the row is unknown, however early it was due; None: known when it is due.

        Raises:
            SourceError: the row has an unknown column, no event time, or a value of another type.
        """
        plain, source = json_row(row), self.view.source
        self._check_names(plain)
        event_us = self._value(Column(name=source.event_column, dtype=DType.TIMESTAMP), plain)
        if event_us is None:
            raise self._refusal(f"has no {source.event_column}", row, f"give the row its {source.event_column}")
        created_us = None
        if source.created_column is not None:
            created_us = self._value(Column(name=source.created_column, dtype=DType.TIMESTAMP), plain)
        deleted = source.tombstone_column is not None and plain.get(source.tombstone_column) is True
        due = max(event_us, event_us + self.view.delay_us if created_us is None else created_us)
        self.rows.append(
            GivenRow(
                values=dict(row),
                key=tuple(self._value(column, plain) for column in self.view.keys),
                event_us=event_us,
                known_us=due if known_us is None else max(due, known_us),
                packed=self._packed(plain, event_us, created_us, deleted=deleted),
            )
        )

    def read(self, key: Sequence[KeyValue | None], t: int) -> ViewRead:
        """Return what the view holds for one entity at time ``t``, microseconds."""
        winner = self.winner(key, t)
        return self._codec.decode([None if winner is None else winner.packed])

    def winner(self, key: Sequence[KeyValue | None], t: int) -> GivenRow | None:
        """Return the row of the highest rank among an entity's rows that are known at time ``t``."""
        rows = [row for row in self.of_entity(key) if row.known_us <= t]
        return max(rows, key=lambda row: row.packed[:RANK_BYTES], default=None)

    def of_entity(self, key: Sequence[KeyValue | None]) -> list[GivenRow]:
        """Return all rows of one entity; a key with a null has none."""
        return [] if None in key else [row for row in self.rows if row.key == tuple(key)]

    def _packed(self, row: Mapping[str, Any], event_us: int, created_us: int | None, *, deleted: bool) -> bytes:
        features = {column.name: self._array(column, row) for column in self.view.features}
        versions = Versions(
            event_ts=np.array([event_us], dtype=np.int64),
            created_ts=np.array([NO_TIME if created_us is None else created_us], dtype=np.int64),
            seq=np.array([len(self.rows)], dtype=np.int64),
            run_id=np.zeros(1, dtype=np.int64),
            tombstone=np.array([deleted]),
        )
        values = {column.name: arrays.to_numpy(features[column.name], column.dtype) for column in self.view.features}
        nulls = {name: find_nulls(column) for name, column in features.items()}
        return self._codec.encode(versions, values, nulls)[0]

    def _value(self, column: Column, row: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of the column's type
        return self._array(column, row)[0].as_py()

    def _array(self, column: Column, row: Mapping[str, Any]) -> pa.ChunkedArray:
        array, problems = convert_values(column, [row.get(column.name)])
        if problems:
            raise self._refusal(problems[0], row, "correct the value")
        return pa.chunked_array([array])

    def _check_names(self, row: Mapping[str, Any]) -> None:
        source = self.view.source
        columns = [column.name for column in (*self.view.keys, *self.view.features)]
        columns += [name for name in (source.event_column, source.created_column, source.tombstone_column) if name]
        for name in row:
            if name not in columns:
                raise self._refusal(f"has an unknown column {name!r}", row, f"use {', '.join(columns)}")

    def _refusal(self, problem: str, row: Mapping[str, Any], fix: str) -> SourceError:
        return SourceError(f"row of view {self.view.name!r}", problem, value=dict(row), fix=fix)
