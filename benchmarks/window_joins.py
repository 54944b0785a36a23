"""Contestants of windowed training rows: ours from the log, and three ways by hand in DuckDB."""

# ruff: noqa: PLC0415 - each contestant loads its own libraries, and nobody else's

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.digest import digest_columns
from benchmarks.meter import Meter
from skewless.contract.windows.hops import HOUR, default_hop
from skewless.infra.platform.storage.project_state import ProjectState

MEMORY = "4GB"


def skewless_log(meter: Meter, *, folder: str, functions: Sequence[str], windows: Sequence[int]) -> str:
    """Compute the windows from the log, in event time."""
    from benchmarks.window_events import view
    from skewless.contract.windows.view import Function
    from skewless.infra.reads.offline.as_of import TIME
    from skewless.infra.reads.offline.engine import connect
    from skewless.infra.reads.offline.log_parts import read_log_partitions
    from skewless.infra.reads.offline.window_join import WindowJoin

    asked = pq.read_table(Path(folder) / "asked.parquet")
    entities = pa.table({"key": asked["key"], TIME: asked["t"]})
    wanted = view([Function(name) for name in functions], windows=windows)
    with tempfile.TemporaryDirectory() as spill, connect(Path(spill), memory_limit=MEMORY) as connection:
        parts = read_log_partitions(ProjectState(Path(folder)), "events")
        with meter.lap():
            read = WindowJoin(connection).read(wanted, parts, entities, mode="event_time")
    return digest_columns({name: read.values[name] for name in read.values})


def by_prefix(meter: Meter, *, folder: str, functions: Sequence[str], windows: Sequence[int]) -> str:
    """Prefix sums, looked up by one ASOF join at t and one at all left edges: what can be taken away again."""
    edges = ", ".join(f"{{'i': {i}, 'at': {_start('t', window)}}}" for i, window in enumerate(windows))
    query = f"""
    WITH sums AS MATERIALIZED (
        SELECT key, ts, sum(fp) OVER running AS s, count(*) OVER running AS n FROM {_events(folder)}
        WINDOW running AS (PARTITION BY key ORDER BY ts ROWS UNBOUNDED PRECEDING)
    ), upto AS (
        SELECT row, s, n FROM asked ASOF LEFT JOIN sums ON asked.key = sums.key AND asked.t > sums.ts
    ), edges AS (
        SELECT unnest([{edges}], recursive := true), row, key FROM asked
    ), before AS (
        SELECT row, i, s, n FROM edges ASOF LEFT JOIN sums ON edges.key = sums.key AND edges.at > sums.ts
    ), wide AS (
        SELECT upto.row,
        {", ".join(_taken(i) for i in range(len(windows)))}
        FROM upto JOIN before ON upto.row = before.row GROUP BY upto.row
    ) SELECT {", ".join(_finals(functions, windows))} FROM wide ORDER BY row"""
    return _by_hand(meter, query, folder)


def by_range_frame(meter: Meter, *, folder: str, functions: Sequence[str], windows: Sequence[int]) -> str:
    """One UNION of events and rows, and a RANGE frame for each window."""
    frames = []
    for i, window in enumerate(windows):
        over = f"(PARTITION BY key ORDER BY ts RANGE BETWEEN ts - {_start('ts', window)} PRECEDING AND 1 PRECEDING)"
        frames += [f"sum(fp) OVER {over} AS s{i}", f"count(fp) OVER {over} AS n{i}", f"max(x) OVER {over} AS max{i}"]
    query = f"""
    WITH events_and_rows AS (
        SELECT NULL AS row, key, ts, fp, x FROM {_events(folder)}
        UNION ALL SELECT row, key, t, NULL, NULL FROM asked
    ), framed AS (SELECT row, {", ".join(frames)} FROM events_and_rows)
    SELECT {", ".join(_finals(functions, windows))} FROM framed WHERE row IS NOT NULL ORDER BY row"""
    return _by_hand(meter, query, folder)


def by_range_join(meter: Meter, *, folder: str, functions: Sequence[str], windows: Sequence[int]) -> str:
    """Join each row with all events of its key in its longest window, and aggregate."""
    sums = []
    for i, window in enumerate(windows):
        inside = f"FILTER (ts >= {_start('t', window)})"
        sums += [f"sum(fp) {inside} AS s{i}", f"count(fp) {inside} AS n{i}", f"max(x) {inside} AS max{i}"]
    query = f"""
    WITH joined AS (
        SELECT row, {", ".join(sums)} FROM asked LEFT JOIN {_events(folder)} e
        ON asked.key = e.key AND e.ts < asked.t AND e.ts >= {_start("t", max(windows))} GROUP BY row
    ) SELECT {", ".join(_finals(functions, windows))} FROM joined ORDER BY row"""
    return _by_hand(meter, query, folder)


def _events(folder: str) -> str:
    return (
        "(SELECT key, ts, amount AS x, CAST(round_even(amount * 100, 0) AS BIGINT) AS fp"
        f" FROM read_parquet('{folder}/events.parquet'))"
    )


def _start(t: str, window: int) -> str:
    hop = default_hop(window)
    return f"(({t} - {window}) // {hop} * {hop})"


def _taken(i: int) -> str:
    mine = f"FILTER (i = {i})"
    return (
        f"coalesce(any_value(upto.s), 0) - coalesce(any_value(before.s) {mine}, 0) AS s{i},"
        f" coalesce(any_value(upto.n), 0) - coalesce(any_value(before.n) {mine}, 0) AS n{i}"
    )


def _finals(functions: Sequence[str], windows: Sequence[int]) -> list[str]:
    """Return the features, by their names: one float division each, of integers below 2^53."""
    total = "CASE WHEN n{i} > 0 THEN CAST(s{i} AS DOUBLE) / {by} END"
    finals = []
    for i, window in enumerate(windows):
        made = {
            "count": f"CAST(n{i} AS DOUBLE)",
            "sum": total.format(i=i, by="100.0::DOUBLE"),
            "mean": total.format(i=i, by=f"(100.0::DOUBLE * n{i})"),
            "max": f"max{i}",
        }
        finals += [f"{made[name]} AS {name}_{window // HOUR}h" for name in functions]
    return finals


def _by_hand(meter: Meter, query: str, folder: str) -> str:
    import duckdb

    asked = pq.read_table(Path(folder) / "asked.parquet")
    with tempfile.TemporaryDirectory() as spill:
        config: dict[str, Any] = {"memory_limit": MEMORY, "temp_directory": spill}
        with duckdb.connect(config=config) as connection:
            connection.register("asked", asked)
            with meter.lap():
                answer = connection.sql(query).to_arrow_table()
    return digest_columns({name: answer[name] for name in answer.column_names})
