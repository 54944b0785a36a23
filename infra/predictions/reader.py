"""Reads the prediction log, one model version at a time, in bounded batches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array, numbers
from skewless.contract.errors import StoreError
from skewless.contract.rows import Versions
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.traffic import Role
from skewless.contract.vector import Matrix
from skewless.contract.windows.tiles import AppliedPositions
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.readers import register_reader
from skewless.infra.predictions.record import Source
from skewless.infra.predictions.schema import READ
from skewless.infra.predictions.segments import BATCH_ROWS, PREDICTIONS, open_prediction_log
from skewless.infra.storage.objects import StoredObject
from skewless.infra.storage.project_state import ProjectState

# Columns that files of older formats lack, with their values in that format.
_ROWS_SQL = """
    SELECT * REPLACE (
        coalesce(asked_at, t) AS asked_at,
        coalesce(read_start, t) AS read_start,
        coalesce(source, 'entities') AS source,
        coalesce(role, 'champion') AS role,
        coalesce(format, 1) AS format,
        coalesce(narrow, false) AS narrow
    )
    FROM (
        SELECT * FROM read_parquet(?, union_by_name = true)
        UNION ALL BY NAME
        SELECT
            NULL::BIGINT AS asked_at,
            NULL::BIGINT AS read_start,
            NULL::VARCHAR AS source,
            NULL::DOUBLE[] AS scores,
            NULL::UTINYINT AS format,
            NULL::VARCHAR AS role,
            NULL::BIGINT AS policy,
            NULL::BOOLEAN AS narrow
        WHERE false
    )
"""


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
        formats: formats of their files.
        roles: role of the version: it served the prediction, or scored it as a shadow.
        reads: per view; empty for full vectors.
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
    formats: npt.NDArray[np.uint8]
    roles: Sequence[Role]
    checksums: Int64Array
    reads: dict[str, LoggedViewRead]


@dataclass(frozen=True, kw_only=True)
class PredictionEntry:
    """One prediction of the log.

    Args:
        logged: its arrays, of one entry each.
        facts: its scalar columns by name (``runtime_id``, ``missing``, ...).
    """

    model_version: ModelVersion
    logged: LoggedPredictions
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _FileShare:
    """The number of predictions of one version, source and role in a file."""

    file: str
    model_version: ModelVersion
    source: Source
    role: Role
    rows: int


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
        return sum(share.rows for share in self._shares)

    def versions(self) -> list[ModelVersion]:
        """Return the model versions in the log, sorted."""
        return sorted({share.model_version for share in self._shares}, key=lambda item: (item.model, item.version))

    def batches(self, version: ModelVersion, roles: Collection[Role] = get_args(Role)) -> Iterator[LoggedPredictions]:
        """Yield the predictions of one model version in batches of bounded size, each from one source.

        A batch is in order of time; so are the batches if files do not overlap.

        Args:
            roles: roles to include; a shadow's predictions have the ids of the served predictions.
        """
        query = f"""
            SELECT * FROM ({_ROWS_SQL}) WHERE model = ? AND version = ? AND list_contains(?, role) AND source = ?
            ORDER BY t, id LIMIT {BATCH_ROWS} OFFSET ?
        """
        for source in get_args(Source):
            shares = [
                item
                for item in self._shares
                if item.model_version == version and item.source == source and item.role in roles
            ]
            for files, total in _group_files(shares):
                for offset in range(0, total, BATCH_ROWS):
                    parameters = [version.model, version.version, list(roles), source, offset]
                    yield _decode_predictions(source, self._relation(query, parameters, files).to_arrow_table())

    @cached_property
    def _shares(self) -> list[_FileShare]:
        """The counts of each file, in the order of the files."""
        if not self._files:
            return []
        rows_with_file = _ROWS_SQL.replace("union_by_name = true", "union_by_name = true, filename = true")
        query = (
            f"SELECT filename, model, version, source, role, count(*) FROM ({rows_with_file}) GROUP BY ALL ORDER BY ALL"
        )
        return [
            _FileShare(
                file=file, model_version=ModelVersion(model=model, version=version), source=source, role=role, rows=rows
            )
            for file, model, version, source, role, rows in self._rows(query, [])
        ]

    def find(self, prediction: str) -> PredictionEntry | None:
        """Return one prediction by its id, as it was served; None if the log does not have it.

        The id column of all files is read, then all columns of the files that have the id: a served prediction and
        its shadow score may be in different files.
        """
        if not self._files:
            return None
        place = "SELECT DISTINCT filename FROM read_parquet(?, filename = true) WHERE id = ?"
        files = [name for (name,) in self._rows(place, [prediction])]
        if not files:
            return None
        table = self._relation(
            f"SELECT * FROM ({_ROWS_SQL}) WHERE id = ? ORDER BY role = 'shadow' LIMIT 1", [prediction], files
        ).to_arrow_table()
        facts = {
            name: table[name][0].as_py() for name in table.column_names if not pa.types.is_nested(table[name].type)
        }
        version = ModelVersion(model=facts["model"], version=facts["version"])
        return PredictionEntry(model_version=version, logged=_decode_predictions(facts["source"], table), facts=facts)

    def _rows(self, query: str, parameters: list[Any]) -> list[Any]:
        return self._relation(query, parameters).fetchall()

    def _relation(self, query: str, parameters: list[Any], files: list[str] | None = None) -> duckdb.DuckDBPyRelation:
        try:
            return self._connection.sql(query, params=[files or self._files, *parameters])
        except duckdb.Error as error:
            raise StoreError(
                "prediction log", f"cannot be read: {error}", fix="remove or restore the corrupt file"
            ) from error


def _group_files(shares: Sequence[_FileShare]) -> Iterator[tuple[list[str], int]]:
    """Yield groups of neighbouring files with at most a batch of rows together, or one larger file, with their rows."""
    group: list[str] = []
    total = 0
    for file, rows in _rows_by_file(shares).items():
        if group and total + rows > BATCH_ROWS:
            yield group, total
            group, total = [], 0
        group.append(file)
        total += rows
    if group:
        yield group, total


def _rows_by_file(shares: Sequence[_FileShare]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for share in shares:
        rows[share.file] = rows.get(share.file, 0) + share.rows
    return rows


def _decode_predictions(source: Source, table: pa.Table) -> LoggedPredictions:
    n = table.num_rows
    score = numbers(table["score"])
    return LoggedPredictions(
        source=source,
        ids=table["id"].to_pylist(),
        t=numbers(table["t"]),
        asked_at=numbers(table["asked_at"]),
        read_start=numbers(table["read_start"]),
        read_end=numbers(table["read_end"]),
        skew_us=numbers(table["skew_us"]),
        inputs=table["inputs"].to_pylist(),
        plan_hash=table["plan_hash"].to_pylist(),
        transform_hashes=table["transform_hashes"].to_pylist(),
        tolerance=numbers(table["tolerance"]),
        vectors=_decode_matrix(table["vector"]),
        score=score,
        scores=score if table["scores"].null_count == n else _decode_matrix(table["scores"]),
        formats=numbers(table["format"]),
        roles=table["role"].to_pylist(),
        checksums=numbers(table["checksum"]),
        reads=_decode_reads(_flatten(table["reads"]), n),
    )


def _decode_matrix(lists: pa.ChunkedArray) -> Matrix:
    flat: Matrix = numbers(_flatten(lists))
    if len(flat) % len(lists):
        raise StoreError("prediction log", "has vectors of unequal length", fix="restore the altered file")
    return flat.reshape(len(lists), -1).copy()


def _flatten(lists: pa.ChunkedArray) -> Any:  # noqa: ANN401 - Arrow's array types
    array = lists.combine_chunks()
    return (array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array).flatten()


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
