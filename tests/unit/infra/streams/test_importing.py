"""History is appended once, also where two runs take the same files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.clock import ManualClock
from skewless.contract.errors import ConflictError
from skewless.contract.plan import FeaturePlan
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.ingest.streams.event_ids import EventIds
from skewless.infra.ingest.streams.importing import Importer
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from tests.worlds.streams import BASE, SOURCE, VIEW

HISTORY = replace(SOURCE, history="history.parquet")


def importer(
    root: Path,
    connection: duckdb.DuckDBPyConnection,
    source: EventSource = HISTORY,
    clock: ManualClock | None = None,
) -> Importer:
    plan = FeaturePlan(
        project="p", views=(), request=(), transforms=(), services=(), windows=(VIEW,), sources=(source,)
    )
    streams = Streams(
        plan=plan,
        state=ProjectState(root),
        settings=Settings(),
        url=lambda: "redis://127.0.0.1:1",  # states do not exist here
        connection=connection,
        clock=clock or ManualClock(BASE),
    )
    return Importer(streams=streams, source=source, repo=root)


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
        real = EventIds.accept

        def overtaken(self: EventIds, *args: object, **more: object) -> object:
            monkeypatch.setattr(EventIds, "accept", real)
            with pytest.raises(ConflictError, match="imported by another process"):
                importer(tmp_path, two).run()
            return real(self, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(EventIds, "accept", overtaken)
        assert importer(tmp_path, one).run().accepted == n
        again = importer(tmp_path, two).run()
    assert (again.accepted, again.present) == (0, n)
