"""Erases the rows of an entity from the logs of views and events; their positions stay (SEMANTICS 1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from skewless.infra.log.catalog import Segment
from skewless.infra.log.event_rows import DECLARED, SOURCE_POS
from skewless.infra.log.log_columns import EVENT, INGEST, KNOWN_AT, RUN, SEQ, TOMBSTONE
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.rewriting import rewrite_segments, visit_segments
from skewless.infra.storage.objects import StoredObject
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.erasure.entity import Entity, erase_values, read_rows

# Positions, times and runs, which the proof of other entities' values needs.
_KEPT = frozenset({SEQ, EVENT, INGEST, RUN, KNOWN_AT, SOURCE_POS, DECLARED, TOMBSTONE})


@dataclass(kw_only=True)
class LoggedEntity:
    """The rows of an entity in one log.

    Args:
        rows: number of rows.
        keys: the distinct rows of its columns of the types of keys.
    """

    rows: int = 0
    keys: pa.Table | None = None

    def full_keys(self, names: Sequence[str]) -> list[tuple[object, ...]]:
        """Return the distinct values of some key columns, without nulls."""
        if self.keys is None or not set(names) <= set(self.keys.column_names):
            return []
        columns = [self.keys[name].to_pylist() for name in names]
        return sorted({row for row in zip(*columns, strict=True) if None not in row})


def find_entity(state: ProjectState, partition: str, entity: Entity) -> LoggedEntity:
    """Return the rows of an entity in a log.

    Raises:
        StoreError: a segment is missing or altered.
    """
    log, found, parts = PartitionLog(state, partition), LoggedEntity(), []
    if entity.values(log.schema()) is None:
        return found

    def visit(_segment: Segment, path: Path) -> None:
        rows = read_rows(entity, path)
        if rows.num_rows:
            found.rows += rows.num_rows
            names = [each.name for each in rows.schema if _may_be_key(each)]
            parts.append(rows.select(names).group_by(names).aggregate([]))

    visit_segments(log, visit)
    found.keys = pa.concat_tables(parts, promote_options="default") if parts else None
    return found


def erase_rows(state: ProjectState, partition: str, entity: Entity) -> list[StoredObject]:
    """Erase the values of an entity's rows; return the objects that had them.

    Raises:
        StoreError: the storage failed, or a segment is missing or altered; a repeated call continues.
    """
    return rewrite_segments(
        PartitionLog(state, partition),
        lambda path: read_rows(entity, path).num_rows > 0,
        partial(erase_values, entity, kept=_KEPT),
    )


def _may_be_key(column: pa.Field) -> bool:
    return not column.name.startswith("__") and (pa.types.is_integer(column.type) or pa.types.is_string(column.type))
