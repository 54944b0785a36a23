"""Draws a seeded sample of the prediction log per time window; the sample does not depend on the files."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from skewless.infra.log.reading import translate_query_errors
from skewless.infra.predictions.segments import prediction_files
from skewless.infra.storage.project_state import ProjectState

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
    """Return a sample of the vectors that a model's versions scored.

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
        return _EMPTY
    values = {"files": files, "model": model, "since": since_us, "until": until_us}
    with connection.cursor() as cursor, translate_query_errors("prediction log"):
        cursor.execute(_SAMPLE_SQL.format(most=most), values | {"window": window_us, "seed": str(seed)})
        return cursor.sql(_VECTORS_SQL, params=values).to_arrow_table().cast(_EMPTY.schema)


_EMPTY = pa.schema(
    [("part", pa.int64()), ("version", pa.string()), ("predictions", pa.int64()), ("vector", pa.list_(pa.float64()))]
).empty_table()
