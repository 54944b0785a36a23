"""Reads the prediction log back, model version by model version, in bounded pieces."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.rows import Versions
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.traffic import Role
from skewless.contract.vector import Matrix
from skewless.contract.windows.tiles import AppliedPositions
from skewless.infra.predictions.files import PIECE_ROWS, log_files
from skewless.infra.predictions.record import Source
from skewless.infra.predictions.schema import READ

# What files of older formats lack, and what it was then.
_ROWS = """
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
    """A version that answered predictions."""

    model: str
    version: str


@dataclass(frozen=True, kw_only=True)
class LoggedViewRead:
    """What the log says one view answered for n predictions.

    Args:
        applied: of a windowed view, up to where its states had been applied; None for other views.
    """

    hashes: Sequence[str]
    status: StatusArray
    versions: Versions
    applied: AppliedPositions | None = None


@dataclass(frozen=True, kw_only=True)
class LoggedPredictions:
    """Predictions of one model version as arrays of n entries, in the order of their times.

    Args:
        inputs: JSON text of what each caller sent.
        score: shape ``(n,)``: the largest of the outputs.
        scores: shape ``(n,)``, or ``(n, k)`` of a model with k outputs.
        formats: of the files that they stand in.
        roles: in which the version answered, or was scored besides.
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
    roles: Sequence[Role]
    checksums: Int64Array
    reads: dict[str, LoggedViewRead]


@dataclass(frozen=True, kw_only=True)
class PredictionEntry:
    """One prediction of the log.

    Args:
        logged: its arrays, of one entry each.
        facts: what the log says of it in one text or number, by column (``runtime_id``, ``missing``, ...).
    """

    of: ModelVersion
    logged: LoggedPredictions
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Share:
    """How many predictions of one kind a file holds."""

    file: str
    of: ModelVersion
    source: Source
    role: Role
    rows: int


class PredictionLog:
    """The prediction log of one project, as it is when this is made.

    Its files stay for the grace time of ``skewless.infra.predictions.compaction.compact``, also when they are merged
    meanwhile.

    Args:
        folder: with its files.
        without: names of files that are left out.

    Raises:
        StoreError: a merged file is damaged.
    """

    def __init__(
        self, folder: Path, connection: duckdb.DuckDBPyConnection, *, without: Collection[str] = frozenset()
    ) -> None:
        self._files = [str(path) for path in log_files(folder) if path.name not in without]
        self._connection = connection

    @property
    def names(self) -> list[str]:
        """Return the names of the files, in order."""
        return [Path(file).name for file in self._files]

    def versions(self) -> list[ModelVersion]:
        """Return which model versions answered, in order."""
        return sorted({share.of for share in self._shares}, key=lambda of: (of.model, of.version))

    def pieces(self, of: ModelVersion, roles: Collection[Role] = get_args(Role)) -> Iterator[LoggedPredictions]:
        """Yield the predictions of one model version in pieces of bounded size, each from one source.

        A piece is in the order of times; so are the pieces where files do not overlap.

        Args:
            roles: those that are wanted; a shadow's predictions have the ids of what was answered.
        """
        query = f"""
            SELECT * FROM ({_ROWS}) WHERE model = ? AND version = ? AND list_contains(?, role) AND source = ?
            ORDER BY t, id LIMIT {PIECE_ROWS} OFFSET ?
        """
        for source in get_args(Source):
            chosen = [item for item in self._shares if item.of == of and item.source == source and item.role in roles]
            for files, total in _grouped(chosen):
                for offset in range(0, total, PIECE_ROWS):
                    parameters = [of.model, of.version, list(roles), source, offset]
                    yield _logged(source, self._relation(query, parameters, files).to_arrow_table())

    @cached_property
    def _shares(self) -> list[_Share]:
        """What each file holds, in the order of the files."""
        if not self._files:
            return []
        named = _ROWS.replace("union_by_name = true", "union_by_name = true, filename = true")
        query = f"SELECT filename, model, version, source, role, count(*) FROM ({named}) GROUP BY ALL ORDER BY ALL"
        return [
            _Share(file=file, of=ModelVersion(model=model, version=version), source=source, role=role, rows=rows)
            for file, model, version, source, role, rows in self._rows(query, [])
        ]

    def find(self, prediction: str) -> PredictionEntry | None:
        """Return one prediction by its id, as it was answered; None if the log does not hold it.

        Of all files the ids are read, and everything of those that have it: a shadow's may be another.
        """
        if not self._files:
            return None
        place = "SELECT DISTINCT filename FROM read_parquet(?, filename = true) WHERE id = ?"
        files = [name for (name,) in self._rows(place, [prediction])]
        if not files:
            return None
        table = self._relation(
            f"SELECT * FROM ({_ROWS}) WHERE id = ? ORDER BY role = 'shadow' LIMIT 1", [prediction], files
        ).to_arrow_table()
        facts = {
            name: table[name][0].as_py() for name in table.column_names if not pa.types.is_nested(table[name].type)
        }
        of = ModelVersion(model=facts["model"], version=facts["version"])
        return PredictionEntry(of=of, logged=_logged(facts["source"], table), facts=facts)

    def _rows(self, query: str, parameters: list[Any]) -> list[Any]:
        return self._relation(query, parameters).fetchall()

    def _relation(self, query: str, parameters: list[Any], files: list[str] | None = None) -> duckdb.DuckDBPyRelation:
        try:
            return self._connection.sql(query, params=[files or self._files, *parameters])
        except duckdb.Error as error:
            raise StoreError(
                "prediction log", f"cannot be read: {error}", fix="remove or restore the damaged file"
            ) from error


def _grouped(shares: Sequence[_Share]) -> Iterator[tuple[list[str], int]]:
    """Yield neighbouring files that hold a piece together at most, or one that holds more, with their rows."""
    group: list[str] = []
    total = 0
    for file, rows in _by_file(shares).items():
        if group and total + rows > PIECE_ROWS:
            yield group, total
            group, total = [], 0
        group.append(file)
        total += rows
    if group:
        yield group, total


def _by_file(shares: Sequence[_Share]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for share in shares:
        rows[share.file] = rows.get(share.file, 0) + share.rows
    return rows


def _logged(source: Source, table: pa.Table) -> LoggedPredictions:
    n = table.num_rows
    score = table["score"].to_numpy()
    return LoggedPredictions(
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
        roles=table["role"].to_pylist(),
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


def _reads(flat: pa.StructArray, n: int) -> dict[str, LoggedViewRead]:
    columns = {field.name: flat.field(field.name) for field in READ if field.name in flat.type.names}
    names = columns["view"].to_pylist()
    width = len(names) // n
    return {names[i]: _read(columns, i, width) for i in range(width)}


def _read(columns: dict[str, Any], i: int, width: int) -> LoggedViewRead:
    def ints(name: str) -> Int64Array:
        return np.ascontiguousarray(columns[name].to_numpy(zero_copy_only=False)[i::width].astype(np.int64))

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
        applied=_applied(columns.get("applied"), i, width),
    )


def _applied(column: pa.ListArray | None, i: int, width: int) -> AppliedPositions | None:
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
    return AppliedPositions(entity=entity, partition=partition, first=seq, seq=seq)
