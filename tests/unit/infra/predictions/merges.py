"""Small prediction logs of several days, and what stands in them, bit by bit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from skewless.infra.log.inventory import Inventory
from skewless.infra.predictions.compaction import compact
from skewless.infra.predictions.files import DAY_US, FOLDER, log_files

from skewless.infra.predictions.reader import PredictionLog
from skewless.infra.predictions.record import PredictionBatch
from skewless.infra.predictions.writer import PredictionWriter
from skewless.infra.storage.project_state import ProjectState
from tests.unit.infra.predictions.records import T, origin, record

DAY = T // DAY_US * DAY_US
HOUR_US = 3_600_000_000
GRACE_S = 100.0
# What files of an older format lack.
LACKS: dict[int, Sequence[str]] = {
    1: ("asked_at", "read_start", "source", "scores", "format", "role", "policy", "narrow"),
    2: ("role", "policy", "narrow"),
    3: (),
}
# Not a number in several ways, and a zero with a sign.
ODD = np.array([0x7FF8_0000_DEAD_BEEF, 0xFFF8_0000_0000_0001, 0x7FF0_0000_0000_0001, 1 << 63], np.uint64)
RowsByKey = dict[tuple[str, str], dict[str, Any]]


def write(state: Path, *, day: int, seed: int, n: int = 3, form: int = 3, version: str = "000001") -> Path:
    """Write one file of n predictions, whose ids and hour the seed says; some numbers in them are odd."""
    given = record(origin(version), n, seed)
    given.matrix[0, : len(ODD)] = ODD.view(np.float64)
    given.scores[-1] = ODD[:1].view(np.float64)[0]
    return write_record(state, given._replace(t=DAY + day * DAY_US + seed * HOUR_US // 10), form)


def write_record(state: Path, given: PredictionBatch, form: int = 3) -> Path:
    folder = state / FOLDER
    before = set(folder.glob("*.parquet"))
    log = PredictionWriter(folder, capacity=10**6, flush_seconds=60, on_drop=lambda n, why: pytest.fail(f"{n} {why}"))
    assert log.offer(given)
    log.close()
    (path,) = set(folder.glob("*.parquet")) - before
    if LACKS[form]:
        table = pq.read_table(path).drop_columns(list(LACKS[form]))
        if "format" in table.column_names:
            table = table.set_column(
                table.column_names.index("format"), "format", pa.array([2] * len(table), pa.uint8())
            )
        pq.write_table(table, path)
        Inventory(folder).add(path)
    return path


def merge(state: Path, *, day: int = 100, later_s: float = 0.0) -> int:
    """Compact on a day of the project's clock, so much later by the disk's."""
    return compact(
        ProjectState(state), now_us=DAY + day * DAY_US + HOUR_US, grace_s=GRACE_S, clock=lambda: time.time() + later_s
    )


def names(state: Path) -> list[str]:
    """Return the names of the files that count."""
    return [path.name for path in log_files(state / FOLDER)]


def standing(state: Path) -> list[str]:
    """Return the names of all files."""
    return sorted(path.name for path in (state / FOLDER).iterdir() if path.name != ".compact.lock")


def stored(state: Path) -> RowsByKey:
    """Return each row with the columns that its file has, floats as their bits; no row may stand twice."""
    rows: RowsByKey = {}
    for path in log_files(state / FOLDER):
        for row in pq.ParquetFile(path).read().to_pylist():
            key = row["id"], row["version"]
            assert key not in rows, key
            rows[key] = row | {"vector": _bits(row["vector"]), "score": _bits([row["score"]])}
    return rows


def seen(state: Path) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return what the reader says of each prediction; none may come twice."""
    with duckdb.connect() as connection:
        return seen_by(PredictionLog(state / FOLDER, connection))


def seen_by(log: PredictionLog) -> dict[tuple[str, str], tuple[Any, ...]]:
    times: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for of in log.versions():
        for piece in log.batches(of):
            for i, name in enumerate(piece.ids):
                times[name, of.version] += 1
                found[name, of.version] = (
                    *(piece.t[i], piece.asked_at[i], piece.read_start[i], piece.formats[i], piece.roles[i]),
                    *(piece.checksums[i], _bits(piece.vectors[i]), _bits(piece.score[i : i + 1]), piece.inputs[i]),
                    *(
                        (name, read.hashes[i], read.status[i], read.versions.seq[i])
                        for name, read in piece.reads.items()
                    ),
                )
    assert set(times.values()) <= {1}, times.most_common(1)
    return found


def rows_in(state: Path, name: str) -> int:
    return int(pq.read_metadata(state / FOLDER / name).num_rows)


def ids_in(state: Path, name: str) -> set[str]:
    return set(pc.unique(pq.ParquetFile(state / FOLDER / name).read(["id"])["id"]).to_pylist())


def _bits(values: Any) -> bytes:  # noqa: ANN401 - a list, or an array
    return np.asarray(values, np.float64).tobytes()
