"""Erases the predictions and outcomes of an entity from their logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.infra.log.catalog import Segment
from skewless.infra.log.log_columns import merged_options
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.rewriting import rewrite_segments, visit_segments
from skewless.infra.outcomes.log import open_outcome_log
from skewless.infra.predictions.segments import WRITE_OPTIONS, open_prediction_log
from skewless.infra.storage.objects import StoredObject
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.erasure.entity import Entity

# Returns for each row whether it belongs to the entity.
_Owns = Callable[[pa.Table], list[bool]]


class LoggedRows:
    """The predictions and outcomes of one entity.

    Args:
        state: of the project; files that this machine has not shipped yet are shipped first.

    Raises:
        StoreError: a file is missing or altered, or the storage failed.
    """

    def __init__(self, state: ProjectState, entity: Entity) -> None:
        self._entity = entity
        self._predictions = open_prediction_log(state)
        self._outcomes = open_outcome_log(state)
        self._ids: set[str] = set()
        self.predictions = self._count_predictions()
        self.outcomes = _count(self._outcomes, ["keys", "prediction_id"], self._owns_outcomes)

    def erase(self) -> list[StoredObject]:
        """Remove the rows; return the objects that had them."""
        # Outcomes first: after an interruption, their predictions are still there to find them.
        return [
            *_erase(self._outcomes, ["keys", "prediction_id"], self._owns_outcomes, merged_options),
            *_erase(self._predictions, ["inputs"], self._owns_predictions, lambda _: WRITE_OPTIONS),
        ]

    def _count_predictions(self) -> int:
        count = 0

        def visit(_segment: Segment, path: Path) -> None:
            nonlocal count
            rows = pq.read_table(path, columns=["id", "inputs"])
            ids = rows["id"].filter(pa.array(self._owns_predictions(rows), pa.bool_())).to_pylist()
            self._ids.update(ids)
            count += len(ids)

        visit_segments(self._predictions, visit)
        return count

    def _owns_predictions(self, rows: pa.Table) -> list[bool]:
        return [self._entity.owns(text) for text in rows["inputs"].to_pylist()]

    def _owns_outcomes(self, rows: pa.Table) -> list[bool]:
        texts, ids = rows["keys"].to_pylist(), rows["prediction_id"].to_pylist()
        return [name in self._ids or self._entity.owns(text) for text, name in zip(texts, ids, strict=True)]


def _count(log: PartitionLog, columns: list[str], owns: _Owns) -> int:
    counts: list[int] = []
    visit_segments(log, lambda _, path: counts.append(sum(owns(pq.read_table(path, columns=columns)))))
    return sum(counts)


def _erase(
    log: PartitionLog, columns: list[str], owns: _Owns, options: Callable[[pa.Schema], Mapping[str, Any]]
) -> list[StoredObject]:
    def is_due(path: Path) -> bool:
        return any(owns(pq.read_table(path, columns=columns)))

    def change(rows: pa.Table) -> pa.Table:
        return rows.filter(pa.array([not each for each in owns(rows)], pa.bool_()))

    return rewrite_segments(log, is_due, change, options)
