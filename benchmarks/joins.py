"""Contestants of the point-in-time join: our log, our Feast plugin, Feast's own store, and DuckDB by hand."""

# ruff: noqa: PLC0415 - each contestant loads its own libraries, and nobody else's

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.digest import digest_columns
from benchmarks.meter import Meter
from skewless.infra.platform.storage.project_state import ProjectState

if TYPE_CHECKING:
    import duckdb

MEMORY = "4GB"


def skewless_log(meter: Meter, *, repo: str, asked: str, mode: str = "event_time") -> str:
    """Join the accepted log, to the columns that the assembler takes."""
    from benchmarks.stored import plan_of
    from skewless.contract.vector import null_mask, view_status
    from skewless.infra.reads.offline.as_of import TIME
    from skewless.infra.reads.offline.views import OfflineViews

    rows, plan = pq.read_table(asked), plan_of(Path(repo))
    entities = pa.table({"entity_id": rows["entity_id"], TIME: rows["event_timestamp"].cast(pa.int64())})
    with tempfile.TemporaryDirectory() as spill, _connection(spill) as connection:
        views = OfflineViews(ProjectState(Path(repo) / ".skewless"), connection)
        with meter.lap():
            reads = views.read(plan, entities, "knowledge" if mode == "knowledge" else "event_time")
    t, columns = entities[TIME].to_numpy(), {}
    for view in plan.views:
        read = reads[view.name]
        status = view_status(read, t, view.ttl_us)
        for feature in view.features:
            columns[feature.name] = pa.array(read.values[feature.name], mask=null_mask(read, status, feature.name))
    return digest_columns(columns)


def feast_store(meter: Meter, *, repo: str, asked: str) -> str:
    """Join with ``get_historical_features``, to Arrow; whichever offline store the repo names."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=repo)
    rows = pq.read_table(asked).to_pandas()
    service = store.get_feature_service("all")
    with meter.lap():
        answer = store.get_historical_features(rows, service).to_arrow()
    answer = answer.sort_by("row")
    return digest_columns({name: answer[name] for name in answer.column_names if name not in rows.columns})


def by_asof(meter: Meter, *, tables: Mapping[str, Sequence[str]], data: str, asked: str, ttl_us: int) -> str:
    """Join with an ASOF join for each table, as one would write it by hand."""
    joins = "".join(
        f" ASOF LEFT JOIN read_parquet('{data}/{name}.parquet') {name}"
        f" ON e.entity_id = {name}.entity_id AND e.event_timestamp >= {name}.event_time"
        for name in tables
    )
    shown = ", ".join(_fresh(name, column, ttl_us) for name, columns in tables.items() for column in columns)
    return _by_hand(meter, f"SELECT {shown} FROM asked e{joins} ORDER BY e.row", asked)


def by_union(meter: Meter, *, tables: Mapping[str, Sequence[str]], data: str, asked: str, ttl_us: int) -> str:
    """Join with UNION ALL and LAST_VALUE over a struct for each table, as one would write it by hand."""
    parts = []
    for name, columns in tables.items():
        struct = ", ".join(f"'{column}': {column}" for column in ("event_time", *columns))
        history = f"read_parquet('{data}/{name}.parquet')"
        both = (
            f"SELECT NULL AS row, entity_id, event_time AS t, {{{struct}}} AS s FROM {history}"
            " UNION ALL SELECT row, entity_id, event_timestamp, NULL FROM asked"
        )
        last = "last_value(s IGNORE NULLS) OVER (PARTITION BY entity_id ORDER BY t, row NULLS FIRST)"
        found = f"SELECT row, t AS event_timestamp, {last} AS s FROM ({both})"
        parts.append(f"(SELECT row, event_timestamp, s.* FROM ({found}) WHERE row IS NOT NULL) {name}")
    first, *others = tables
    joined = parts[0] + "".join(
        f" JOIN {part} ON {first}.row = {name}.row" for part, name in zip(parts[1:], others, strict=True)
    )
    shown = ", ".join(
        _fresh(name, column, ttl_us, f"{name}.event_timestamp")
        for name, columns in tables.items()
        for column in columns
    )
    return _by_hand(meter, f"SELECT {shown} FROM {joined} ORDER BY {first}.row", asked)


def _fresh(table: str, column: str, ttl_us: int, moment: str = "e.event_timestamp") -> str:
    if not ttl_us:
        return f"{table}.{column}"
    age = f"{moment} - {table}.event_time <= to_microseconds({ttl_us})"
    return f"CASE WHEN {age} THEN {table}.{column} END AS {column}"


def _by_hand(meter: Meter, query: str, asked: str) -> str:
    import duckdb

    rows = pq.read_table(asked)
    with tempfile.TemporaryDirectory() as spill:
        config: dict[str, Any] = {"memory_limit": MEMORY, "temp_directory": spill}
        with duckdb.connect(config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("asked", rows)
            with meter.lap():
                answer = connection.sql(query).to_arrow_table()
    return digest_columns({name: answer[name] for name in answer.column_names})


def _connection(spill: str) -> duckdb.DuckDBPyConnection:
    from skewless.infra.reads.offline.engine import connect

    return connect(Path(spill), memory_limit=MEMORY)
