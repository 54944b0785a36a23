"""The vectors and scores that a model version answered with in a part of the time, in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.vector import Matrix
from skewless.infra.predictions.files import PIECE_ROWS, log_files

_ANSWERED = """
    FROM (
        SELECT * FROM read_parquet($files, union_by_name = true)
        UNION ALL BY NAME
        SELECT NULL::VARCHAR AS role WHERE false
    )
    WHERE model = $model AND version = $version AND t >= $since AND t < $until AND role IS DISTINCT FROM 'shadow'
"""
# A row of the log that was read w times says as much as one: Kish's effective number of rows is (sum w)^2 / sum w^2.
_REPEATS = f"""
    WITH
    reads AS (SELECT unnest(reads) AS read {_ANSWERED}),
    used AS (
        SELECT read.view AS view, read.hash, read.seq AS seq, count(*)::DOUBLE AS n FROM reads GROUP BY ALL
    )
    SELECT view, sum(CASE WHEN seq >= 0 THEN n * n ELSE n END) / sum(n) AS repeats FROM used GROUP BY view
"""


@dataclass(frozen=True, kw_only=True)
class LivePredictions:
    """Some answered predictions.

    Args:
        vectors: shape ``(n, n_features)``, in the order of the model's features; NaN: null.
        scores: shape ``(n,)``, the largest output of each.
    """

    vectors: Matrix
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AnsweredScores:
    """What a version answered callers with in a part of the time; what it scored as a shadow is left out.

    Args:
        folder: of the prediction log.
        since_us: first moment of evaluation, UTC microseconds.
        until_us: the first moment that is too late.
    """

    folder: Path
    connection: duckdb.DuckDBPyConnection
    model: str
    version: str
    since_us: int
    until_us: int

    def pieces(self) -> Iterator[LivePredictions]:
        """Yield the predictions, in no order.

        Raises:
            StoreError: a log file is damaged.
        """
        for batch in self._asked(f"SELECT vector, score {_ANSWERED}"):
            yield _live(batch)

    def repeats(self) -> dict[str, float]:
        """Return by view how many predictions a log row served, as their mean weighted by itself; 1 of windows.

        So many times fewer rows than predictions were drawn (the design effect of Kish, Survey Sampling, 1965).

        Raises:
            StoreError: a log file is damaged.
        """
        return {row["view"]: row["repeats"] for batch in self._asked(_REPEATS) for row in batch.to_pylist()}

    def _asked(self, query: str) -> Iterator[pa.RecordBatch]:
        files = [str(path) for path in log_files(self.folder)]
        if not files:
            return
        bound = {"files": files, "model": self.model, "version": self.version}
        try:
            rows = self.connection.sql(query, params=bound | {"since": self.since_us, "until": self.until_us})
            yield from (batch for batch in rows.to_arrow_reader(PIECE_ROWS) if batch.num_rows)
        except duckdb.Error as error:
            fix = "remove or restore the damaged file"
            raise StoreError("prediction log", f"cannot be read: {error}", fix=fix) from error


def _live(batch: pa.RecordBatch) -> LivePredictions:
    flat = batch["vector"].flatten().to_numpy(zero_copy_only=False)
    if len(flat) % batch.num_rows:
        raise StoreError("prediction log", "holds vectors of unequal length", fix="restore the altered file")
    return LivePredictions(vectors=flat.reshape(batch.num_rows, -1), scores=batch["score"].to_numpy())
