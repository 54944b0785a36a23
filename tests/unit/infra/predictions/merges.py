"""Small prediction logs of several days, and the rows in them, bit by bit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.infra.log.catalog import Catalog, Segment
from skewless.infra.log.log_columns import encode_columns
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.reader import PredictionLog
from skewless.infra.records.predictions.record import PredictionBatch
from skewless.infra.records.predictions.segments import (
    DAY_US,
    PREDICTIONS,
    SCHEMA,
    compact_predictions,
    prediction_spool,
)
from skewless.infra.records.predictions.writer import PredictionWriter
from tests.unit.infra.predictions.records import T, origin, record

DAY = T // DAY_US * DAY_US
HOUR_US = 3_600_000_000
# Not a number in several ways, and a zero with a sign.
ODD = np.array([0x7FF8_0000_DEAD_BEEF, 0xFFF8_0000_0000_0001, 0x7FF0_0000_0000_0001, 1 << 63], np.uint64)
RowsByKey = dict[tuple[str, str], dict[str, Any]]


def write(state: ProjectState, *, day: int, seed: int, n: int = 3, version: str = "000001") -> Segment:
    """Log n predictions as one segment; the seed sets ids and hour; some numbers are odd."""
    given = record(origin(version), n, seed)
    given.matrix[0, : len(ODD)] = ODD.view(np.float64)
    given.scores[-1] = ODD[:1].view(np.float64)[0]
    return write_record(state, given._replace(t=DAY + day * DAY_US + seed * HOUR_US // 10))


def write_record(state: ProjectState, given: PredictionBatch) -> Segment:
    spool_record(state, given)
    prediction_spool(state).ship()
    return segments(state)[-1]


def spool_record(state: ProjectState, given: PredictionBatch) -> Path:
    """Return the file of a writer whose machine has not shipped it."""
    spool = prediction_spool(state)
    before = set(spool.waiting())
    log = PredictionWriter(spool, capacity=10**6, flush_seconds=60, on_drop=lambda n, why: pytest.fail(f"{n} {why}"))
    assert log.offer(given)
    log.close()
    (path,) = set(spool.waiting()) - before
    return path


def import_file(state: ProjectState, path: Path) -> None:
    """Move a file into the log."""
    stored = state.storage.put_file(f"{PREDICTIONS}/{path.name}", path)
    columns, rows = encode_columns(SCHEMA), pq.read_metadata(path).num_rows
    Catalog(state.database).append(
        PREDICTIONS, stored, rows, began_at=time.time(), at_us=int(path.name[:20]), columns=columns
    )
    path.unlink()


def merge(state: ProjectState, *, day: int = 100) -> int:
    """Compact on a day of the project's clock."""
    return compact_predictions(state, DAY + day * DAY_US + HOUR_US)


def segments(state: ProjectState) -> list[Segment]:
    """Return the segments of the log, without shipping."""
    return PartitionLog(state, PREDICTIONS).segments()


def path_of(state: ProjectState, segment: Segment) -> Path:
    return state.storage.local_path(segment.stored)


def objects(state: ProjectState) -> set[str]:
    """Return the names of all stored objects."""
    folders = (PREDICTIONS, f"log/{PREDICTIONS}", "staging")
    return {item.name for folder in folders for item in state.storage.list_objects(folder)}


def delete_objects(state: ProjectState) -> int:
    """Delete removed objects as if all processes that have read the log had ended."""
    state.database.execute("DELETE FROM leases WHERE name LIKE 'log reader %'")
    return Catalog(state.database).delete_unread(state.storage)


def stored(state: ProjectState) -> RowsByKey:
    """Return each row, floats as their bits; no row may be in two segments."""
    rows: RowsByKey = {}
    for segment in segments(state):
        for row in pq.ParquetFile(path_of(state, segment)).read().to_pylist():
            key = row["id"], row["version"]
            assert key not in rows, key
            complete = {name: row.get(name) for name in SCHEMA.names}
            rows[key] = complete | {"vector": _bits(row["vector"]), "score": _bits([row["score"]])}
    return rows


def seen(state: ProjectState) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return the reader's values of each prediction; none may be read twice."""
    with duckdb.connect() as connection:
        return seen_by(PredictionLog(state, connection))


def seen_by(log: PredictionLog) -> dict[tuple[str, str], tuple[Any, ...]]:
    times: Counter[tuple[str, str]] = Counter()
    values: dict[tuple[str, str], tuple[Any, ...]] = {}
    for of in log.versions():
        for piece in log.batches(of, []):
            for i, name in enumerate(piece.ids):
                times[name, of.version] += 1
                values[name, of.version] = (
                    *(piece.t[i], piece.asked_at[i], piece.read_start[i], piece.roles[i]),
                    *(_bits(piece.vectors[i]), _bits(piece.score[i : i + 1]), piece.inputs[i]),
                    *(
                        (name, read.hashes[i], read.status[i], read.versions.seq[i])
                        for name, read in piece.reads.items()
                    ),
                )
    assert set(times.values()) <= {1}, times.most_common(1)
    return values


def ids_in(state: ProjectState, segment: Segment) -> set[str]:
    return set(pc.unique(pq.ParquetFile(path_of(state, segment)).read(["id"])["id"]).to_pylist())


def proven_ids(state: ProjectState) -> set[str]:
    """Return the ids in segments that replay has proven."""
    return {name for segment in segments(state) if segment.is_proven for name in ids_in(state, segment)}


def prove(state: ProjectState, proven: Sequence[Segment] | None = None) -> None:
    """Record segments as proven; None: all."""
    chosen = segments(state) if proven is None else proven
    Catalog(state.database).mark_proven(PREDICTIONS, [segment.stored.name for segment in chosen])


def _bits(values: Any) -> bytes:  # noqa: ANN401 - a list, or an array
    return np.asarray(values, np.float64).tobytes()
