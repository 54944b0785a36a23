"""The delay of a source's latest events, read from the end of each partition, and the rows at places of a log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import event_schema
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.log_parts import (
    measure_event_delays,
    measure_latest_delays,
    read_log_partitions,
    read_rows_at,
)
from tests.worlds.streams import BASE, SOURCE

SECOND = 1_000_000
N = 40


def append(log: PartitionLog, first: int, delays_s: list[int]) -> None:
    """Append events that were known some seconds after they happened; every seventh was refused."""
    for at, delay in enumerate(delays_s, first):
        schema = event_schema(SOURCE)
        columns = {
            "__event_ts": pa.array([BASE + at], pa.int64()),
            "__ingest_ts": pa.array([BASE + at], pa.int64()),
            "__source_pos": pa.array([at], pa.int64()),
            "__reject": pa.array(["bad" if at % 7 == 0 else None], pa.string()),
            "x": pa.array([float(at)], pa.float64()),
        }
        log.append(pa.table([columns.get(item.name, pa.nulls(1, item.type)) for item in schema], schema=schema))
        log.record_end(at, at, BASE + at + delay * SECOND)


def test_the_latest_delays_are_those_of_the_last_rows_of_the_stream(tmp_path: Path) -> None:
    state, connection = ProjectState(tmp_path), connect(tmp_path / "spill")
    rng = np.random.default_rng(3)
    delays = {part: rng.integers(1, 30, N).tolist() for part in ("e/0", "e/1", "import/f")}
    for part, values in delays.items():
        append(PartitionLog(state, f"events/s/{part}"), 0, values)
    for merges in (False, True):
        if merges:
            compact(PartitionLog(state, "events/s/e/0"), keep=1, group=lambda _: "all")
        for rows in (5, N, 10 * N):
            latest = measure_latest_delays(connection, state, "s", partitions=8, rows=rows)
            first = max(0, N - rows)
            expected = sorted(delays[part][at] for part in ("e/0", "e/1") for at in range(first, N) if at % 7)
            assert latest.events == len(expected)
            assert latest.p50_s == expected[-(-len(expected) // 2) - 1]
            assert latest.late == sum(delay > 10 for delay in expected) / len(expected)
        parts = [part for part in read_log_partitions(state, "s") if "import" not in part.partition]
        assert measure_event_delays(connection, parts) == latest
        one = measure_latest_delays(connection, state, "s", partitions=1, rows=N)
        assert one.events == sum(bool(at % 7) for at in range(N))
        assert measure_latest_delays(connection, state, "nowhere", partitions=8, rows=5).p50_s is None


def test_rows_are_found_by_their_positions_before_and_after_compaction(tmp_path: Path) -> None:
    state, connection = ProjectState(tmp_path), connect(tmp_path / "spill")
    log = PartitionLog(state, "events/s/e/0")
    append(log, 0, [1] * N)
    for _ in range(2):
        rows = read_rows_at(connection, state, log.partition, [0, 7, N - 1, N, 10**12])
        assert {at: row["x"] for at, row in rows.items()} == {0: 0.0, 7: 7.0, N - 1: N - 1.0}
        compact(log, keep=1, group=lambda _: "all")
    assert read_rows_at(connection, state, log.partition, []) == {}
    assert read_rows_at(connection, state, "events/none", [1]) == {}
