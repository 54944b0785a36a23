"""Reads the prediction log back, model version by model version, in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.predictions.record import Source
from infra.predictions.schema import READ
from skewless.errors import StoreError
from skewless.rows import Versions
from skewless.status import Int64Array, StatusArray
from skewless.vector import Matrix
from skewless.windows.tiles import Slots

_PIECE_ROWS = 50_000
# What files of the first format lack, and what it was then.
_ROWS = """
    SELECT * REPLACE (
        coalesce(asked_at, t) AS asked_at,
        coalesce(read_start, t) AS read_start,
        coalesce(source, 'entities') AS source,
        coalesce(format, 1) AS format
    )
    FROM (
        SELECT * FROM read_parquet(?, union_by_name = true)
        UNION ALL BY NAME
        SELECT
            NULL::BIGINT AS asked_at,
            NULL::BIGINT AS read_start,
            NULL::VARCHAR AS source,
            NULL::DOUBLE[] AS scores,
            NULL::UTINYINT AS format
        WHERE false
    )
"""


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A version that answered predictions."""

    model: str
    version: str


@dataclass(frozen=True, kw_only=True)
class LoggedRead:
    """What the log says one view answered for n predictions.

    Args:
        applied: of a windowed view, up to where its states had been applied; None for other views.
    """

    hashes: Sequence[str]
    status: StatusArray
    versions: Versions
    applied: Slots | None = None


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Predictions of one model version as arrays of n entries, in the order of their times.

    Args:
        inputs: JSON text of what each caller sent.
        score: shape ``(n,)``: the largest of the outputs.
        scores: shape ``(n,)``, or ``(n, k)`` of a model with k outputs.
        formats: of the files that they stand in.
        reads: per view; none of full vectors.
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
    checksums: Int64Array
    reads: dict[str, LoggedRead]


class PredictionLog:
    """The prediction log of one project."""

    def __init__(self, folder: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self._files = [str(path) for path in sorted(folder.glob("*.parquet"))]
        self._connection = connection

    def versions(self) -> list[ModelVersion]:
        """Return which model versions answered, in order."""
        if not self._files:
            return []
        query = f"SELECT DISTINCT model, version FROM ({_ROWS}) ORDER BY ALL"
        return [ModelVersion(model=model, version=version) for model, version in self._rows(query, [])]

    def pieces(self, of: ModelVersion) -> Iterator[Logged]:
        """Yield the predictions of one model version in pieces of bounded size, each from one source."""
        condition = f"FROM ({_ROWS}) WHERE model = ? AND version = ? AND source = ?"
        for source in get_args(Source):
            parameters = [of.model, of.version, source]
            total = self._rows(f"SELECT count(*) {condition}", parameters)[0][0]
            query = f"SELECT * {condition} ORDER BY t, id LIMIT {_PIECE_ROWS} OFFSET ?"
            for offset in range(0, total, _PIECE_ROWS):
                yield _logged(source, self._relation(query, [*parameters, offset]).to_arrow_table())

    def _rows(self, query: str, parameters: list[Any]) -> list[Any]:
        return self._relation(query, parameters).fetchall()

    def _relation(self, query: str, parameters: list[Any]) -> duckdb.DuckDBPyRelation:
        try:
            return self._connection.sql(query, params=[self._files, *parameters])
        except duckdb.Error as error:
            raise StoreError(
                "prediction log", f"cannot be read: {error}", fix="remove or restore the damaged file"
            ) from error


def _logged(source: Source, table: pa.Table) -> Logged:
    n = table.num_rows
    score = table["score"].to_numpy()
    return Logged(
        source=source,
        ids=table["id"].to_pylist(),
        t=table["t"].to_numpy(),
        asked_at=table["asked_at"].to_numpy(),
        read_start=table["read_start"].to_numpy(),
        read_end=table["read_end"].to_numpy(),
        skew_us=table["skew_us"].to_numpy(),
        inputs=table["inputs"].to_pylist(),
        plan_hash=table["plan_hash"].to_pylist(),
        transform_hashes=table["transform_hashes"].to_pylist(),
        tolerance=table["tolerance"].to_numpy(),
        vectors=_matrix(table["vector"]),
        score=score,
        scores=score if table["scores"].null_count == n else _matrix(table["scores"]),
        formats=table["format"].to_numpy(),
        checksums=table["checksum"].to_numpy(),
        reads=_reads(_flat(table["reads"]), n),
    )


def _matrix(lists: pa.ChunkedArray) -> Matrix:
    flat: Matrix = _flat(lists).to_numpy(zero_copy_only=False)
    if len(flat) % len(lists):
        raise StoreError("prediction log", "holds vectors of unequal length", fix="restore the altered file")
    return flat.reshape(len(lists), -1).copy()


def _flat(lists: pa.ChunkedArray) -> Any:  # noqa: ANN401 - Arrow's array types
    array = lists.combine_chunks()
    return (array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array).flatten()


def _reads(flat: pa.StructArray, n: int) -> dict[str, LoggedRead]:
    columns = {field.name: flat.field(field.name) for field in READ if field.name in flat.type.names}
    names = columns["view"].to_pylist()
    width = len(names) // n
    return {names[i]: _read(columns, i, width) for i in range(width)}


def _read(columns: dict[str, Any], i: int, width: int) -> LoggedRead:
    def ints(name: str) -> Int64Array:
        return np.ascontiguousarray(columns[name].to_numpy(zero_copy_only=False)[i::width].astype(np.int64))

    versions = Versions(
        event_ts=ints("event_ts"),
        created_ts=ints("created_ts"),
        seq=ints("seq"),
        run_id=ints("run_id"),
        tombstone=np.zeros(len(ints("seq")), dtype=np.bool_),
    )
    return LoggedRead(
        hashes=columns["hash"].to_pylist()[i::width],
        status=ints("status").astype(np.uint8),
        versions=versions,
        applied=_applied(columns.get("applied"), i, width),
    )


def _applied(column: pa.ListArray | None, i: int, width: int) -> Slots | None:
    """Return the slots of one view; None where it has none in any prediction, as views without windows."""
    if column is None:
        return None
    own = column.take(pa.array(np.arange(i, len(column), width)))
    if own.null_count == len(own):
        return None
    slots = own.flatten()
    partition, seq = (
        slots.field(name).to_numpy(zero_copy_only=False).astype(np.int64) for name in ("partition", "seq")
    )
    entity = own.value_parent_indices().to_numpy().astype(np.int64)
    return Slots(entity=entity, partition=partition, first=seq, seq=seq)
