"""Reads the vectors and scores of a time range from the prediction log: in bounded batches, or a seeded sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import numbers
from skewless.contract.vector import Matrix
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.predictions.reader import decode_matrix
from skewless.infra.predictions.segments import BATCH_ROWS, ROWS_SQL, prediction_files
from skewless.infra.storage.project_state import ProjectState

_SERVED_SQL = f"""
    FROM {ROWS_SQL}
    WHERE model = $model AND version = $version AND t >= $since AND t < $until AND role <> 'shadow'
"""
# A feature row that was read w times is as much evidence as one read: Kish's effective number of rows is
# (sum w)^2 / sum w^2.
_REPEATS_SQL = f"""
    WITH
    reads AS (SELECT unnest(reads) AS read {_SERVED_SQL}),
    used AS (
        SELECT read.view AS view, read.hash, read.seq AS seq, count(*)::DOUBLE AS n FROM reads GROUP BY ALL
    )
    SELECT view, sum(CASE WHEN seq >= 0 THEN n * n ELSE n END) / sum(n) AS repeats FROM used GROUP BY view
"""
# The rows with the smallest seeded hashes of each group, selected in one scan of the ids: nothing is sorted, and only
# the vectors of selected rows are read.
_SAMPLE_SQL = """
    CREATE TEMP TABLE chosen AS
    SELECT version, part, predictions, unnest(ids) AS id FROM (
        SELECT version, (t - $since) // $window AS part, count(*) AS predictions,
            arg_min(id, md5_number(concat($seed, id)), {most:d}) AS ids
        FROM read_parquet($files, union_by_name = true)
        WHERE model = $model AND t >= $since AND t < $until
        GROUP BY ALL
    )
"""
_VECTORS_SQL = """
    SELECT part, version, predictions, vector FROM read_parquet($files, union_by_name = true) AS log
    JOIN chosen USING (id, version) WHERE model = $model AND t >= $since AND t < $until ORDER BY part, version, id
"""
_SAMPLE = pa.schema(
    [("part", pa.int64()), ("version", pa.string()), ("predictions", pa.int64()), ("vector", pa.list_(pa.float64()))]
)


@dataclass(frozen=True, kw_only=True)
class LivePredictions:
    """A batch of served predictions.

    Args:
        vectors: shape ``(n, n_features)``, in the order of the model's features; NaN: null.
        scores: shape ``(n,)``, the largest output of each.
    """

    vectors: Matrix
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ServedScores:
    """The predictions that a version served in a time range; its shadow scores are excluded.

    Args:
        state: of the project.
        since_us: start of the range by time of evaluation, UTC microseconds.
        until_us: end of the range, exclusive.
    """

    state: ProjectState
    connection: duckdb.DuckDBPyConnection
    model: str
    version: str
    since_us: int
    until_us: int

    def batches(self) -> Iterator[LivePredictions]:
        """Yield the predictions in batches, in any order.

        Raises:
            StoreError: a log file is corrupt.
        """
        for batch in self._query(f"SELECT vector, score {_SERVED_SQL}"):
            rows = pa.Table.from_batches([batch])
            yield LivePredictions(vectors=decode_matrix(rows["vector"]), scores=numbers(rows["score"]))

    def repeats(self) -> dict[str, float]:
        """Return by view how many predictions used the same feature row, as a self-weighted mean; 1 for windows.

        The effective sample size is smaller than the number of predictions by this factor (the design effect of Kish,
        Survey Sampling, 1965).

        Raises:
            StoreError: a log file is corrupt.
        """
        return {row["view"]: row["repeats"] for batch in self._query(_REPEATS_SQL) for row in batch.to_pylist()}

    def _query(self, query: str) -> Iterator[pa.RecordBatch]:
        files = prediction_files(self.state)
        if not files:
            return
        bound = {"files": files, "model": self.model, "version": self.version}
        with translate_query_errors("prediction log"):
            rows = self.connection.sql(query, params=bound | {"since": self.since_us, "until": self.until_us})
            yield from (batch for batch in rows.to_arrow_reader(BATCH_ROWS) if batch.num_rows)


def sample_log(
    state: ProjectState,
    connection: duckdb.DuckDBPyConnection,
    model: str,
    *,
    since_us: int,
    until_us: int,
    window_us: int,
    most: int,
    seed: int,
) -> pa.Table:
    """Return a sample of the vectors that a model's versions scored; it does not depend on the files.

    Args:
        state: of the project.
        since_us, until_us: time range of the predictions, the end exclusive.
        window_us: length of a window; the first begins at ``since_us``.
        most: largest sample of each version in each window.
        seed: seed of the sample.

    Returns:
        ``part`` (number of the window), ``version``, ``predictions`` (of the version in the window) and
        ``vector``, in that order.

    Raises:
        StoreError: a file of the log is corrupt.
    """
    files = prediction_files(state)
    if not files:
        return pa.Table.from_batches([], _SAMPLE)  # `empty_table` imports pandas
    values = {"files": files, "model": model, "since": since_us, "until": until_us}
    with connection.cursor() as cursor, translate_query_errors("prediction log"):
        cursor.execute(_SAMPLE_SQL.format(most=most), values | {"window": window_us, "seed": str(seed)})
        return cursor.sql(_VECTORS_SQL, params=values).to_arrow_table().cast(_SAMPLE)
