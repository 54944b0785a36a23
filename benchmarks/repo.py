"""A made-up Feast project of any size: seeded tables with floats, integers, nulls and text, and its definitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.programs import run_feast, run_skewless

START_US = 1_735_689_600_000_000  # 2025-01-01
HOUR_US = 3_600_000_000
_CHUNK = 500_000
_WORDS = np.array(["north", "south-east", "Zürich", "", "a longer name of some place", None], dtype=object)
_TYPES = {"Float64": pa.float64(), "Int64": pa.int64(), "String": pa.string()}

OURS = "online_store: null\n"
LOCAL = "provider: local\n"
PROVIDER = "provider: skewless_feast.provider.SkewlessProvider\n"
_IMPORTS = """from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

entity = Entity(name="entity", join_keys=["entity_id"], value_type=ValueType.INT64)
"""
_PUSH_LINE = '{name}_push = PushSource(name="{name}_push", batch_source={name}_source)\n'
_VIEW = """
{name}_source = FileSource(path={path!r}, timestamp_field="event_time")
{name}_push = PushSource(name="{name}_push", batch_source={name}_source)
{name} = FeatureView(
    name="{name}",
    entities=[entity],
    schema=[
        Field(name="entity_id", dtype=Int64),
{fields}
    ],
    source={name}_{kind},
)
"""


@dataclass(frozen=True, kw_only=True)
class ViewTable:
    """A table of one feature view.

    Args:
        n_features: of ten, seven are floats, two integers; the last is text where ``text`` says so.
        per_entity: rows of history of each entity, an hour apart.
    """

    name: str
    n_entities: int
    n_features: int
    per_entity: int = 1
    text: bool = False

    @property
    def features(self) -> dict[str, str]:
        """Return Feast's type of each feature."""
        last = "String" if self.text else "Float64"
        cycle = ["Float64"] * 7 + ["Int64"] * 2 + [last]
        return {f"{self.name}_{i:02}": cycle[i % 10] for i in range(self.n_features)}

    def chunks(self) -> Iterator[pa.Table]:
        """Yield its rows, the oldest first; the same for the same arguments."""
        rng = np.random.default_rng([len(self.name), self.n_entities, self.n_features])
        for hour in range(self.per_entity):
            for first in range(0, self.n_entities, _CHUNK):
                ids = np.arange(first, min(first + _CHUNK, self.n_entities), dtype=np.int64)
                yield self._chunk(rng, ids, hour)

    def write(self, folder: Path) -> Path:
        """Write it as Parquet and return the file."""
        path = folder / f"{self.name}.parquet"
        chunks = self.chunks()
        first = next(chunks)
        with pq.ParquetWriter(path, first.schema) as writer:
            writer.write_table(first)
            for chunk in chunks:
                writer.write_table(chunk)
        return path

    def _chunk(self, rng: np.random.Generator, ids: np.ndarray, hour: int) -> pa.Table:
        n = len(ids)
        event = START_US + hour * HOUR_US + rng.integers(0, HOUR_US, n)
        columns = {
            "entity_id": pa.array(ids),
            "event_time": pa.array(event, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        }
        for place, (name, kind) in enumerate(self.features.items()):
            columns[name] = _values(rng, kind, n, nulls=place % 3 == 0)
        return pa.table(columns)


def applied_repo(
    folder: Path, tables: Sequence[ViewTable], data: Path, store: str = OURS, *, pushed: bool = False
) -> Path:
    """Write a repo and apply it: ours by our program, others by Feast's; return the folder."""
    write_repo(folder, tables, data, store, pushed=pushed)
    if store == OURS:
        run_skewless(folder, "apply")
    else:
        run_feast(folder, "apply")
    return folder


def write_repo(
    folder: Path, tables: Sequence[ViewTable], data: Path, store: str = OURS, *, pushed: bool = False
) -> Path:
    """Write a repo with one view per table and the service ``all``; return the folder.

    Args:
        data: where the tables' files lie.
        store: the lines of ``feature_store.yaml`` that name the online store.
        pushed: whether each table is a push source too, named ``<table>_push``.
    """
    folder.mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(
        "project: bench\nregistry: .skewless/registry.db\noffline_store:\n  type: duckdb\n"
        f"entity_key_serialization_version: 3\n{store}{'' if 'provider:' in store else LOCAL}"
    )
    (folder / "definitions.py").write_text(_definitions(tables, data, pushed=pushed))
    return folder


def feast_redis(url: str) -> str:
    """Return the lines that name Feast's own Redis store."""
    address = url.removeprefix("redis://").partition("/")[0]
    return f"online_store:\n  type: redis\n  connection_string: {address}\n"


def plugin_redis(url: str) -> str:
    """Return the lines that name our plugin."""
    return f"online_store:\n  type: skewless_feast.online_store.SkewlessOnlineStore\n  redis_url: {url}\n"


def _definitions(tables: Sequence[ViewTable], data: Path, *, pushed: bool) -> str:
    kind = "push" if pushed else "source"
    views = "".join(
        (_VIEW if pushed else _VIEW.replace(_PUSH_LINE, "")).format(
            name=table.name, path=str(data / f"{table.name}.parquet"), fields=_fields(table), kind=kind
        )
        for table in tables
    )
    names = ", ".join(table.name for table in tables)
    return f'{_IMPORTS}{views}\nservice = FeatureService(name="all", features=[{names}])\n'


def _fields(table: ViewTable) -> str:
    return "\n".join(f"        Field(name={name!r}, dtype={kind})," for name, kind in table.features.items())


def _values(rng: np.random.Generator, kind: str, n: int, *, nulls: bool) -> pa.Array:
    if kind == "String":
        return pa.array(_WORDS[rng.integers(0, len(_WORDS), n)], pa.string())
    values = rng.integers(-(10**6), 10**6, n) if kind == "Int64" else rng.normal(size=n)
    return pa.array(values, _TYPES[kind], mask=rng.random(n) < 0.05 if nulls else None)
