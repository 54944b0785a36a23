"""Entrants of the point-in-time join on engines: ours and Feast's, on one machine, Ray and Spark."""

# ruff: noqa: PLC0415 - each contestant loads its own libraries, and nobody else's

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.meter import Meter

_SAMPLE_S = 0.2
PEAK = "peak_bytes"


def ours_alone(meter: Meter, *, repo: str, asked: str, out: str) -> str:
    """Join with ``Project.dataset``, to files."""
    from skewless.project import Project

    with _measured(meter), Project(repo) as project:
        project.dataset(Path(asked), "all", Path(out), mode="event_time")
    return ""


def ours_ray(meter: Meter, *, repo: str, asked: str, out: str) -> str:
    """Join a Ray Dataset, to files."""
    import ray

    from skewless_ray import features
    from skewless_ray.engine import connect

    connect(None)
    with _measured(meter):
        features(ray.data.read_parquet(asked), project=repo, service="all", mode="event_time").write_parquet(out)
    return ""


def ours_spark(meter: Meter, *, repo: str, asked: str, out: str) -> str:
    """Join a Spark DataFrame, to files."""
    from skewless_spark import features
    from skewless_spark.engine import open_session

    session = open_session(None)
    with _measured(meter):
        frame = session.read.parquet(asked)
        features(frame, project=repo, service="all", mode="event_time").write.parquet(out)
    return ""


def feast_engine(meter: Meter, *, repo: str, asked: str, out: str) -> str:
    """Join with ``get_historical_features`` of the offline store that the repo names, to a file."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=repo)
    rows = pq.read_table(asked).to_pandas()
    service = store.get_feature_service("all")
    with _measured(meter):
        pq.write_table(pa.Table.from_pandas(store.get_historical_features(rows, service).to_df()), out)
    return ""


@contextmanager
def _measured(meter: Meter) -> Iterator[None]:
    """Measure the block as a lap, and the greatest memory of this process and all that descend from it."""
    done = threading.Event()
    peak = 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(_SAMPLE_S):
            peak = max(peak, _tree_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        with meter.lap():
            yield
    finally:
        done.set()
        thread.join()
        meter.note(PEAK, max(peak, _tree_bytes()))


def _tree_bytes() -> int:
    """Return the memory of this process and its descendants; pages that several share count once (PSS)."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    total, pending = 0, [os.getpid()]
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        with suppress(OSError):
            line = next(
                line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line[:4] == "Pss:"
            )
            total += int(line.split()[1]) * 1_024
    return total
