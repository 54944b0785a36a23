"""Finds and erases the rows of an entity in the logs; those of views and events keep their place (SEMANTICS 1.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.infra.log.compaction import Change, Options, rewrite_segments, visit_segments
from skewless.infra.log.event_rows import DECLARED, SOURCE_POS
from skewless.infra.log.log_columns import EVENT, INGEST, KNOWN_AT, RUN, SEQ, TOMBSTONE, merged_options
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.outcomes.log import open_outcome_log
from skewless.infra.predictions.segments import WRITE_OPTIONS, open_prediction_log
from skewless.infra.storage.objects import StoredObject
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.erasure.entity import Entity, erase_values, read_rows

# Positions, times and runs, which the proof of other entities' values needs.
_KEPT = frozenset({SEQ, EVENT, INGEST, RUN, KNOWN_AT, SOURCE_POS, DECLARED, TOMBSTONE})


@dataclass(kw_only=True)
class LoggedEntity:
    """The rows of an entity in one log, as it is now.

    Args:
        log: the log.
        read: returns the entity's rows in a file.
        change: returns the rows of a row group after the erasure.
        options: of the Parquet writer.

    Attributes:
        rows: number of rows.

    Raises:
        StoreError: a segment is missing or altered, or the storage failed.
    """

    log: PartitionLog
    read: Callable[[Path], pa.Table]
    change: Change
    options: Options = merged_options
    rows: int = field(default=0, init=False)
    _distinct: list[pa.Table] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        visit_segments(self.log, lambda _, path: self._add(self.read(path)))

    def values(self, names: Sequence[str]) -> list[tuple[object, ...]]:
        """Return the distinct values of some columns of integers or texts, sorted, without nulls."""
        tables = [table for table in self._distinct if set(names) <= set(table.column_names)]
        rows = {row for table in tables for row in zip(*(table[name].to_pylist() for name in names), strict=True)}
        return sorted(row for row in rows if None not in row)

    def erase(self) -> list[StoredObject]:
        """Erase the rows; return the objects that had them.

        Raises:
            StoreError: the storage failed, or a segment is missing or altered; a repeated call continues.
        """
        return rewrite_segments(self.log, lambda path: self.read(path).num_rows > 0, self.change, self.options)

    def _add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        names = [column.name for column in rows.schema if _may_be_key(column)]
        if rows.num_rows:
            self._distinct.append(rows.select(names).group_by(names).aggregate([]))


def find_accepted_rows(log: PartitionLog, entity: Entity) -> LoggedEntity:
    """Return the rows of an entity in a log of a view or of events, whose values are erased."""
    return LoggedEntity(log=log, read=partial(read_rows, entity), change=partial(erase_values, entity, kept=_KEPT))


def find_predictions(state: ProjectState, entity: Entity) -> LoggedEntity:
    """Return the predictions of an entity, which are removed; what this machine has not shipped is shipped first."""
    log = open_prediction_log(state)
    return _find_logged(log, ["id", "inputs"], lambda row: entity.owns(row["inputs"]), lambda _: WRITE_OPTIONS)


def find_outcomes(state: ProjectState, entity: Entity, predictions: LoggedEntity) -> LoggedEntity:
    """Return the outcomes of an entity or of its predictions, which are removed."""
    ids = {name for (name,) in predictions.values(["id"])}

    def owns(row: Mapping[str, Any]) -> bool:
        return row["prediction_id"] in ids or entity.owns(row["keys"])

    return _find_logged(open_outcome_log(state), ["keys", "prediction_id"], owns, merged_options)


def _find_logged(
    log: PartitionLog, columns: list[str], owns: Callable[[Mapping[str, Any]], bool], options: Options
) -> LoggedEntity:
    def mask(rows: pa.Table) -> pa.Array:
        return pa.array([owns(row) for row in rows.select(columns).to_pylist()], pa.bool_())

    def read(path: Path) -> pa.Table:
        rows = pq.read_table(path, columns=columns)
        return rows.filter(mask(rows))

    return LoggedEntity(log=log, read=read, change=lambda rows: rows.filter(pc.invert(mask(rows))), options=options)


def _may_be_key(column: pa.Field) -> bool:
    return not column.name.startswith("__") and (pa.types.is_integer(column.type) or pa.types.is_string(column.type))
