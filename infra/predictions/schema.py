"""The columns of the prediction log."""

from __future__ import annotations

import pyarrow as pa

# Predictions in files of any format; columns that older ones lack have their values in that format.
ROWS_SQL = """(
    SELECT * REPLACE (
        coalesce(asked_at, t) AS asked_at,
        coalesce(read_start, t) AS read_start,
        coalesce(source, 'entities') AS source,
        coalesce(role, 'champion') AS role,
        coalesce(format, 1) AS format,
        coalesce(narrow, false) AS narrow
    )
    FROM (
        SELECT * FROM read_parquet($files, union_by_name = true, filename = true)
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
)"""
FORMAT = 3  # format 1 lacks the column `format`, format 2 lacks role and policy
APPLIED = pa.struct([("partition", pa.int64()), ("seq", pa.int64())])
READ = pa.struct(
    [
        ("view", pa.string()),
        ("hash", pa.string()),
        ("status", pa.uint8()),
        ("event_ts", pa.int64()),
        ("created_ts", pa.int64()),
        ("seq", pa.int64()),
        ("run_id", pa.int64()),
        ("generation", pa.int32()),
        ("applied", pa.list_(APPLIED)),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("t", pa.int64()),
        ("asked_at", pa.int64()),
        ("read_start", pa.int64()),
        ("read_end", pa.int64()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("runtime_id", pa.string()),
        ("tolerance", pa.float64()),
        ("plan_hash", pa.string()),
        ("transform_hashes", pa.list_(pa.string())),
        ("missing", pa.string()),
        ("skew_us", pa.int64()),
        ("source", pa.string()),
        ("inputs", pa.string()),
        ("reads", pa.list_(READ)),
        ("watermarks", pa.list_(pa.int64())),
        ("vector", pa.list_(pa.float64())),
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("format", pa.uint8()),
        ("checksum", pa.int64()),
        ("role", pa.string()),
        ("policy", pa.int64()),
        ("narrow", pa.bool_()),
    ]
)
