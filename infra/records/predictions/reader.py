"""Reads the prediction log, one model version at a time, in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import filled_numbers, int64_array, numbers
from skewless.contract.errors import StoreError
from skewless.contract.rows import Versions
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.traffic import Role
from skewless.contract.vector import Matrix
from skewless.contract.windows.tiles import AppliedPositions
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.readers import register_reader
from skewless.infra.log.reading import regroup, translate_query_errors
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.batches import booleans
from skewless.infra.records.predictions.checksum import find_intact
from skewless.infra.records.predictions.ids import find_id_time
from skewless.infra.records.predictions.record import Source
from skewless.infra.records.predictions.segments import (
    BATCH_ROWS,
    PREDICTIONS,
    READ,
    ROWS_SQL,
    open_prediction_log,
)

_NUMBER_COLUMNS = ("t", "asked_at", "read_start", "read_end", "skew_us", "tolerance")


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A model version in the prediction log."""

    model: str
    version: str


@dataclass(frozen=True, kw_only=True)
class LoggedViewRead:
    """The logged reads of one view for n predictions.

    Args:
        applied: positions up to which a windowed view's states had been applied; None for other views.
    """

    hashes: Sequence[str]
    status: StatusArray
    versions: Versions
    applied: AppliedPositions | None = None


@dataclass(frozen=True, kw_only=True)
class LoggedPredictions:
    """Predictions of one model version as arrays of n entries, in order of their times.

    Args:
        inputs: JSON text of each caller's inputs.
        score: shape ``(n,)``: the largest of the outputs.
        scores: shape ``(n,)``, or ``(n, k)`` of a model with k outputs.
        roles: role of the version: it served the prediction, or scored it as a shadow.
        actions: the decision about each; None: there is none.
        propensities: probability of each action; NaN: the model did not explore.
        reasons: codes of the policy's reasons; None: the model had no policy.
        lists: JSON text: number of the version of each list that the policy read.
        reads: per view; empty for full vectors.
        events: log partition and position of each decision's event; (None, -1): a caller
            requested the prediction.
    """

    source: Source
    ids: Sequence[str]
    t: Int64Array
    asked_at: Int64Array
    read_start: Int64Array
    read_end: Int64Array
    skew_us: Int64Array
    inputs: Sequence[str]
    plan_hash: Sequence[str]
    transform_hashes: Sequence[Sequence[str]]
    tolerance: npt.NDArray[np.float64]
    vectors: Matrix
    score: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    roles: Sequence[Role]
    actions: Sequence[str | None]
    propensities: npt.NDArray[np.float64]
    reasons: Sequence[Sequence[str] | None]
    lists: Sequence[str | None]
    reads: dict[str, LoggedViewRead]
    events: Sequence[tuple[str | None, int]] = ()


@dataclass(frozen=True, kw_only=True)
class PredictionEntry:
    """One prediction of the log.

    Args:
        logged: its arrays, of one entry each.
        is_intact: whether the row has the checksum of its columns.
        facts: its scalar columns by name (``runtime_id``, ``missing``, ...).
    """

    model_version: ModelVersion
    logged: LoggedPredictions
    is_intact: bool
    facts: Mapping[str, Any]


class PredictionLog:
    """A snapshot of a project's prediction log at the time of its opening.

    Args:
        state: of the project.
        unproven: without the segments that replay has proven.
        only: these objects alone, of its segments.

    Attributes:
        objects: the objects of its segments.

    Raises:
        StoreError: a file is missing, truncated or altered.
    """

    def __init__(
        self,
        state: ProjectState,
        connection: duckdb.DuckDBPyConnection,
        *,
        unproven: bool = False,
        only: Sequence[StoredObject] | None = None,
    ) -> None:
        register_reader(state.database)
        if only is None:
            segments = open_prediction_log(state).segments()
            only = [segment.stored for segment in segments if not (unproven and segment.is_proven)]
        self.objects = list(only)
        self._state = state
        self._files = [str(path) for path in state.storage.local_paths(self.objects)]
        self._connection = connection

    def mark_proven(self) -> None:
        """Record that replay has proven all predictions of the snapshot."""
        Catalog(self._state.database).mark_proven(PREDICTIONS, [stored.name for stored in self.objects])

    @property
    def rows(self) -> int:
        """Return the number of predictions."""
        counts = self._query(f"SELECT count(*) FROM {ROWS_SQL}").fetchall() if self._files else [(0,)]
        return int(counts[0][0])

    def versions(self) -> list[ModelVersion]:
        """Return the model versions in the log, sorted."""
        return sorted({version for version, _ in self._sources}, key=lambda item: (item.model, item.version))

    def batches(self, version: ModelVersion, altered: list[str]) -> Iterator[LoggedPredictions]:
        """Yield the predictions of one model version in batches of bounded size, each from one source.

        A batch is in order of time. A shadow's predictions have the ids of the served predictions.

        Args:
            altered: gets the ids of rows that lack the checksum of their columns, which are not yielded.
        """
        query = f"""
            FROM {ROWS_SQL} WHERE model = $model AND version = $version AND source = $source
        """
        values = {"model": version.model, "version": version.version}
        for source in sorted(source for each, source in self._sources if each == version):
            # A cursor of its own, because the caller may query the connection before the next batch.
            with closing(self._connection.cursor()) as cursor, translate_query_errors("prediction log"):
                rows = cursor.sql(query, params={"files": self._files, "source": source, **values})
                for logged in regroup(rows.to_arrow_reader(BATCH_ROWS), BATCH_ROWS):
                    is_intact = find_intact(logged)
                    altered += logged.filter(booleans(~is_intact))["id"].to_pylist()
                    if not (table := logged.filter(booleans(is_intact))).num_rows:
                        continue
                    yield _decode_predictions(source, table.sort_by([("t", "ascending"), ("id", "ascending")]))

    @cached_property
    def _sources(self) -> set[tuple[ModelVersion, Source]]:
        """The sources of each model version."""
        query = f"SELECT DISTINCT model, version, source FROM {ROWS_SQL}"
        rows = self._query(query).fetchall() if self._files else []
        return {(ModelVersion(model=model, version=version), source) for model, version, source in rows}

    def find(self, prediction: str) -> PredictionEntry | None:
        """Return one prediction by its id, as it was served; None if the log does not have it.

        The id column is read, of files with the time of the id if it has one, then all columns of the files that have
        the id: a served prediction and its shadow score may be in different files.
        """
        if not self._files:
            return None
        place, values = "SELECT DISTINCT filename FROM read_parquet($files, filename = true) WHERE id = $id", {}
        if (times := find_id_time(prediction)) is not None:
            # Parquet's statistics have the times of a file, but not its ids.
            place, values = f"{place} AND t BETWEEN $first AND $last", {"first": times[0], "last": times[-1]}
        files = [name for (name,) in self._query(place, {"id": prediction, **values}).fetchall()]
        if not files:
            return None
        query = f"SELECT * FROM {ROWS_SQL} WHERE id = $id ORDER BY role = 'shadow' LIMIT 1"
        table = self._query(query, {"id": prediction}, files).to_arrow_table()
        facts = {
            name: table[name][0].as_py() for name in table.column_names if not pa.types.is_nested(table[name].type)
        }
        version = ModelVersion(model=facts["model"], version=facts["version"])
        logged, is_intact = _decode_predictions(facts["source"], table), bool(find_intact(table).all())
        return PredictionEntry(model_version=version, logged=logged, is_intact=is_intact, facts=facts)

    def query_rows(self, query: str, values: Mapping[str, Any]) -> pa.Table:
        """Return the result of a query on ``rows``, its predictions; without files it is empty.

        Raises:
            StoreError: a file is corrupt.
        """
        if not self._files:
            return pa.table({})
        return self._query(f"WITH rows AS (FROM {ROWS_SQL}) {query}", values).to_arrow_table()

    def _query(
        self, query: str, values: Mapping[str, Any] | None = None, files: list[str] | None = None
    ) -> duckdb.DuckDBPyRelation:
        with translate_query_errors("prediction log"):
            return self._connection.sql(query, params={"files": files or self._files, **(values or {})})


def _decode_predictions(source: Source, table: pa.Table) -> LoggedPredictions:
    n, score = table.num_rows, numbers(table["score"])
    columns: dict[str, Any] = {name: numbers(table[name]) for name in _NUMBER_COLUMNS}
    columns |= {name: table[name].to_pylist() for name in ("inputs", "plan_hash", "transform_hashes")}
    return LoggedPredictions(
        source=source,
        **columns,
        ids=table["id"].to_pylist(),
        vectors=decode_matrix(table["vector"]),
        score=score,
        scores=score if table["scores"].null_count == n else decode_matrix(table["scores"]),
        roles=table["role"].to_pylist(),
        actions=table["action"].to_pylist(),
        propensities=filled_numbers(table["propensity"], np.nan),
        reasons=table["reasons"].to_pylist(),
        lists=table["lists"].to_pylist(),
        reads=_decode_reads(_flatten(table["reads"]), n),
        events=_decode_events(table["event"]),
    )


def _decode_events(column: pa.ChunkedArray) -> list[tuple[str | None, int]]:
    if column.null_count == len(column):
        return [(None, -1)] * len(column)
    return [(None, -1) if event is None else (event["partition"], event["seq"]) for event in column.to_pylist()]


def decode_matrix(lists: pa.ChunkedArray) -> Matrix:
    """Return a column of lists of numbers as a matrix.

    Raises:
        StoreError: the lists have different lengths.
    """
    flat: Matrix = numbers(_flatten(lists))
    if len(flat) % len(lists):
        raise StoreError("prediction log", "has vectors of unequal length", fix="restore the altered file")
    return flat.reshape(len(lists), -1)


def _flatten(lists: pa.ChunkedArray) -> Any:  # noqa: ANN401 - Arrow's array types
    chunks = lists.combine_chunks()
    array = chunks.combine_chunks() if isinstance(chunks, pa.ChunkedArray) else chunks
    if array.null_count:
        return array.flatten()
    # As `flatten`, which imports pyarrow.compute.
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return array.values.slice(first, last - first)


def _decode_reads(flat: pa.StructArray, n: int) -> dict[str, LoggedViewRead]:
    columns = {field.name: flat.field(field.name) for field in READ if field.name in flat.type.names}
    names = columns["view"].to_pylist()
    width = len(names) // n
    return {names[i]: _decode_read(columns, i, width) for i in range(width)}


def _decode_read(columns: dict[str, Any], i: int, width: int) -> LoggedViewRead:
    def ints(name: str) -> Int64Array:
        return np.ascontiguousarray(numbers(columns[name])[i::width].astype(np.int64))

    versions = Versions(
        event_ts=ints("event_ts"),
        created_ts=ints("created_ts"),
        seq=ints("seq"),
        run_id=ints("run_id"),
        tombstone=np.zeros(len(ints("seq")), dtype=np.bool_),
    )
    return LoggedViewRead(
        hashes=columns["hash"].to_pylist()[i::width],
        status=ints("status").astype(np.uint8),
        versions=versions,
        applied=_decode_applied(columns.get("applied"), i, width),
    )


def _decode_applied(column: pa.ListArray | None, i: int, width: int) -> AppliedPositions | None:
    """Return the slots of one view; None if no prediction has any, as for views without windows."""
    if column is None:
        return None
    of_view = column.take(int64_array(np.arange(i, len(column), width)))
    if of_view.null_count == len(of_view):
        return None
    slots = of_view.flatten()
    partition, seq = (numbers(slots.field(name)).astype(np.int64) for name in ("partition", "seq"))
    entity = numbers(of_view.value_parent_indices()).astype(np.int64)
    return AppliedPositions(entity=entity, partition=partition, first=seq, seq=seq)
