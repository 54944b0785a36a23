"""History is appended once, also where two runs take the same file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.offline.engine import connect
from infra.streams.importing import Importer
from skewless.clock import ManualClock
from skewless.errors import ConflictError
from tests.reliability.stream_world import BASE, SOURCE, VIEW


def importer(root: Path, connection: duckdb.DuckDBPyConnection) -> Importer:
    return Importer(
        source=replace(SOURCE, history="history.parquet"),
        views=[VIEW],
        repo=root,
        log_root=root / "log",
        connection=connection,
        clock=ManualClock(BASE),
    )


def test_4_2_of_two_runs_at_once_one_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 10
    moments = pa.array([BASE - i for i in range(n)], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    columns = {
        "event": [f"e{i}" for i in range(n)],
        "id": pa.array(range(n), pa.int64()),
        "x": pa.array([float(i) for i in range(n)], pa.float64()),
        "y": pa.nulls(n, pa.float64()),
        "n": pa.array(range(n), pa.int64()),
        "s": ["a"] * n,
        "ts": moments,
    }
    pq.write_table(pa.table(columns), tmp_path / "history.parquet")
    with connect(tmp_path / "spill", threads=1) as one, connect(tmp_path / "spill", threads=1) as two:
        real = Importer._judged

        def overtaken(self: Importer, rows: pa.Table, first: int) -> tuple[pa.Table, int]:
            monkeypatch.setattr(Importer, "_judged", real)
            assert importer(tmp_path, two).run().accepted == n
            return real(self, rows, first)

        monkeypatch.setattr(Importer, "_judged", overtaken)
        with pytest.raises(ConflictError):
            importer(tmp_path, one).run()
        again = importer(tmp_path, one).run()
    assert (again.accepted, again.present) == (0, n)
