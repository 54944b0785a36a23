"""Reads the vectors and scores of a time range from the prediction log in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import numbers
from skewless.contract.vector import Matrix
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.reader import decode_matrix
from skewless.infra.records.predictions.segments import BATCH_ROWS, ROWS_SQL, SCHEMA, prediction_files

_SERVED_SQL = f"""
    FROM {ROWS_SQL}
    WHERE model = $model AND version = $version AND t >= $since AND t < $until AND role <> 'shadow'
"""
# Predictions without a feature row are together one group of each view.
_USES_SQL = f"""
    SELECT read.view AS view, CASE WHEN read.seq >= 0 THEN read.hash END AS hash, greatest(read.seq, -1) AS seq,
        count(*) AS n
    FROM (SELECT unnest(reads) AS read {_SERVED_SQL})
    GROUP BY ALL
"""
# A feature row that was read w times is as much evidence as one read: Kish's effective number of rows is
# (sum w)^2 / sum w^2. Integers, so that neither the order of the rows nor their division into parts counts.
_REPEATS_SQL = """
    SELECT view, sum(CASE WHEN seq >= 0 THEN n::HUGEINT * n::HUGEINT ELSE n::HUGEINT END), sum(n)::HUGEINT
    FROM (SELECT view, hash, seq, sum(n) AS n FROM uses GROUP BY ALL) GROUP BY view
"""
_USES = pa.schema([("view", pa.string()), ("hash", pa.string()), ("seq", pa.int64()), ("n", pa.int64())])
_WITH_OUTCOME = pa.schema([*map(SCHEMA.field, ("id", "t", "version", "role", "inputs")), ("has_keys", pa.bool_())])


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
        only: these objects of the log alone; None: all.
    """

    state: ProjectState
    connection: duckdb.DuckDBPyConnection
    model: str
    version: str
    since_us: int
    until_us: int
    only: Sequence[StoredObject] | None = None

    def batches(self) -> Iterator[LivePredictions]:
        """Yield the predictions in batches, in any order.

        Raises:
            StoreError: a log file is corrupt.
        """
        if not self._files:
            return
        with translate_query_errors("prediction log"):
            found = self.connection.sql(f"SELECT vector, score {_SERVED_SQL}", params=self._values)
            for batch in found.to_arrow_reader(BATCH_ROWS):
                if batch.num_rows:
                    rows = pa.Table.from_batches([batch])
                    yield LivePredictions(vectors=decode_matrix(rows["vector"]), scores=numbers(rows["score"]))

    def uses(self) -> pa.Table:
        """Return how often each feature row was used: ``view``, ``hash``, ``seq`` and ``n``, sorted.

        ``mean_repeats`` adds the tables of several parts of a log.

        Raises:
            StoreError: a log file is corrupt.
        """
        if not self._files:
            return pa.Table.from_batches([], _USES)  # `empty_table` imports pandas
        query = f"{_USES_SQL} ORDER BY ALL"
        with translate_query_errors("prediction log"):
            return self.connection.sql(query, params=self._values).to_arrow_table()

    def with_outcome(self, ids: pa.Table, keys: Sequence[tuple[str, pa.Table]]) -> pa.Table:
        """Return the predictions that may have an outcome.

        Args:
            ids: ``prediction_id`` of outcomes.
            keys: the SQL of the key of a prediction, and a table with keys of outcomes in ``key``.

        Returns:
            ``id``, ``t``, ``version``, ``role``, ``inputs`` and ``has_keys``, sorted.

        Raises:
            StoreError: a log file is corrupt.
        """
        tests = ["id IN (SELECT prediction_id FROM ids)"] * bool(ids.num_rows)
        tests += [f"source = 'entities' AND {sql} IN (SELECT key FROM keys_{i})" for i, (sql, _) in enumerate(keys)]
        if not self._files or not tests:
            return pa.Table.from_batches([], _WITH_OUTCOME)  # `empty_table` imports pandas
        query = f"""
            SELECT id, t, version, role, inputs, source = 'entities' AS has_keys {_SERVED_SQL}
            AND ({" OR ".join(f"({test})" for test in tests)}) ORDER BY ALL
        """
        with self.connection.cursor() as cursor, translate_query_errors("prediction log"):
            cursor.register("ids", ids)
            for i, (_, table) in enumerate(keys):
                cursor.register(f"keys_{i}", table)
            return cursor.sql(query, params=self._values).to_arrow_table().cast(_WITH_OUTCOME)

    @cached_property
    def _files(self) -> list[str]:
        if self.only is None:
            return prediction_files(self.state)
        return [str(path) for path in self.state.storage.local_paths(self.only)]

    @property
    def _values(self) -> dict[str, Any]:
        bound = {"files": self._files, "model": self.model, "version": self.version}
        return bound | {"since": self.since_us, "until": self.until_us}


def mean_repeats(connection: duckdb.DuckDBPyConnection, uses: Sequence[pa.Table]) -> dict[str, float]:
    """Return by view how many predictions used the same feature row, as a self-weighted mean; 1 for windows.

    The effective sample size is smaller than the number of predictions by this factor (the design effect of Kish,
    Survey Sampling, 1965).

    Args:
        uses: ``ServedScores.uses`` of the parts of a log.
    """
    with connection.cursor() as cursor:
        cursor.register("uses", pa.concat_tables(uses))
        # Python's division of integers is exact up to the last bit.
        return {view: squares / total for view, squares, total in cursor.sql(_REPEATS_SQL).fetchall()}
