"""The columns and segments of the prediction log: where predictions wait to be shipped, how they are merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from skewless.infra.log.catalog import Segment
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.spool import Spool
from skewless.infra.platform.storage.project_state import ProjectState

ROWS_SQL = "read_parquet($files)"  # all columns of the predictions in files
FORMAT = 1  # of the rows
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
EVENT = pa.struct(
    [
        ("stream", pa.string()),
        ("partition", pa.string()),
        ("seq", pa.int64()),
        ("event_ts", pa.int64()),
        ("late", pa.bool_()),
    ]
)
CONTENT = pa.schema(
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
        ("role", pa.string()),
        ("policy", pa.int64()),
        ("narrow", pa.bool_()),
        ("trace_id", pa.string()),
        ("event", EVENT),
        ("action", pa.string()),
        ("propensity", pa.float64()),
        ("reasons", pa.list_(pa.string())),
        ("lists", pa.string()),
    ]
)
# The file in which a server wrote the row, its place in it and its number of rows; and the checksum of all columns.
_SEAL = pa.schema([("file", pa.string()), ("row", pa.int32()), ("rows", pa.int32()), ("checksum", pa.int64())])
SCHEMA = pa.schema([*CONTENT, *_SEAL])

PREDICTIONS = "predictions"  # name of the log
BATCH_ROWS = 50_000  # rows that a reader holds in memory at a time
DAY_US = 86_400_000_000
# Columns with few distinct values. For other columns Parquet would try a dictionary in vain.
_DICTIONARY_COLUMNS = (
    *("t", "asked_at", "read_start", "read_end", "skew_us", "source", "format", "missing", "role", "policy"),
    *("action", "propensity", "reasons.list.element", "lists"),
    *("model", "version", "runtime_id", "tolerance", "plan_hash", "transform_hashes.list.element"),
    *("event.stream", "event.partition", "file", "rows"),
    *(f"reads.list.element.{name}" for name in ("view", "hash", "status", "run_id", "generation")),
)
# Vectors and scores keep all bits.
WRITE_OPTIONS: Mapping[str, Any] = {
    "compression": "zstd",
    "use_dictionary": list(_DICTIONARY_COLUMNS),
    "column_encoding": {"vector.list.element": "BYTE_STREAM_SPLIT"},
    "write_statistics": ["t", "model", "version"],
}


def prediction_spool(state: ProjectState) -> Spool:
    """Return where the servers of this machine write predictions."""
    return Spool(state, PREDICTIONS, SCHEMA, WRITE_OPTIONS)


def open_prediction_log(state: ProjectState) -> PartitionLog:
    """Return the prediction log; what this machine has written is in it.

    Raises:
        StoreError: the database or the storage is unavailable.
    """
    prediction_spool(state).ship()
    return PartitionLog(state, PREDICTIONS)


def prediction_files(state: ProjectState) -> list[str]:
    """Return local files with all logged predictions; each prediction is in exactly one of them.

    Raises:
        StoreError: a file is missing, truncated or altered.
    """
    return open_prediction_log(state).files()


def compact_predictions(state: ProjectState, now_us: int, *, since_us: int = 0, dry_run: bool = False) -> int:
    """Merge the segments of past UTC days, up to a reader's batch size each; return how many were merged.

    Segments are merged only if replay has proven all or none of them. Those of a day can be deleted together later.
    Those of the days before ``since_us`` are not merged any more.

    Raises:
        StoreError: the storage failed, or a file is missing or altered; nothing is lost.
    """

    def group(segment: Segment) -> tuple[int, bool] | None:
        day = segment.at_us // DAY_US
        return (day, segment.is_proven) if since_us // DAY_US <= day < now_us // DAY_US else None

    log = open_prediction_log(state)
    return compact(
        log, keep=0, target_rows=BATCH_ROWS, group=group, options=lambda _: WRITE_OPTIONS, dry_run=dry_run
    ).merged


def remove_predictions(
    state: ProjectState, before_us: int, *, keep_from: int | None = None, dry_run: bool = False
) -> int:
    """Remove the segments of UTC days before a time from the log; return how many.

    Args:
        keep_from: predictions from this position on stay: a sink still waits for them. None: none does.
    """
    catalog, before_us = open_prediction_log(state).catalog, before_us // DAY_US * DAY_US
    return catalog.remove_before(PREDICTIONS, before_us, keep_from=keep_from, dry_run=dry_run)
