"""One Feast project under two offline stores: ours, and Feast's own on DuckDB as oracle where it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import FeastType, Float64, Int64
from feast.value_type import ValueType

Kind = Literal["skewless", "feast"]
TYPES: Mapping[Kind, str] = {
    "skewless": "skewless.infra.feast_plugins.offline_store.SkewlessOfflineStore",
    "feast": "duckdb",
}
UTC_US = pa.timestamp("us", tz="UTC")
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(*hours: float | None) -> pa.Array:
    """Return times so many hours after the start."""
    return pa.array([None if hour is None else START + hour * HOUR for hour in hours], UTC_US)


def entity_df(ids: Sequence[Any], hours: Sequence[float], key: str = "id") -> pd.DataFrame:
    """Return entity rows."""
    return pd.DataFrame({key: ids, "event_timestamp": [START + hour * HOUR for hour in hours]})


def key(name: str = "id", kind: ValueType = ValueType.INT64) -> Entity:
    return Entity(name=name, join_keys=[name], value_type=kind)


@dataclass
class OfflineWorld:
    """A repo; sources lie in it, and each store has a registry of its own."""

    root: Path
    stores: dict[Kind, FeatureStore] = field(default_factory=dict)

    def write(self, path: str, columns: Mapping[str, Any] | pa.Table) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), place)
        return place

    def source(self, path: str = "v.parquet", **options: Any) -> FileSource:  # noqa: ANN401 - Feast's
        times: dict[str, Any] = {"timestamp_field": "event"}
        # Absolute, since Feast's store looks from the working folder.
        return FileSource(path=str(self.root / path), **(times | options))

    def view(
        self,
        name: str = "v",
        *,
        features: Mapping[str, FeastType] | None = None,
        entities: Sequence[Entity] | None = None,
        source: Any = None,  # noqa: ANN401 - any data source
        ttl: timedelta = timedelta(0),
        keys: Mapping[str, FeastType] | None = None,
    ) -> FeatureView:
        typed = dict(features or {"x": Float64})
        columns = typed | dict(keys if keys is not None else {"id": Int64})
        return FeatureView(
            name=name,
            entities=list(entities if entities is not None else [key()]),
            schema=[Field(name=field_name, dtype=dtype) for field_name, dtype in columns.items()],
            source=source if source is not None else self.source(),
            ttl=ttl,
        )

    def apply(self, *objects: Any) -> None:  # noqa: ANN401 - any Feast object
        """Register the definitions with a store of each kind."""
        for kind in TYPES:
            self.stores[kind] = store = self.open(kind)
            store.apply(list(objects))

    def open(self, kind: Kind) -> FeatureStore:
        config = RepoConfig(
            project="p",
            registry=str(self.root / f"registry_{kind}.db"),
            provider="local",
            offline_store={"type": TYPES[kind]},
            online_store={"type": "sqlite", "path": str(self.root / "online.db")},
            entity_key_serialization_version=3,
            repo_path=self.root,
        )
        return FeatureStore(config=config)

    def ask(
        self,
        kind: Kind,
        rows: pd.DataFrame | pa.Table | str | None,
        features: Any,  # noqa: ANN401 - references or a service
        **options: Any,  # noqa: ANN401 - Feast's
    ) -> pa.Table:
        frame: Any = rows.copy() if isinstance(rows, pd.DataFrame) else rows
        return self.stores[kind].get_historical_features(frame, features, **options).to_arrow()

    def both(
        self,
        rows: pd.DataFrame,
        features: Sequence[str],
        **options: Any,  # noqa: ANN401 - Feast's
    ) -> tuple[pa.Table, pa.Table]:
        """Return the answers of ours and of Feast's, both in the order of the entity rows."""
        numbered = rows.assign(__n=range(len(rows)))
        ours, feast = (self.ask(kind, numbered, features, **options) for kind in TYPES)
        return ours.drop_columns(["__n"]), feast.sort_by("__n").drop_columns(["__n"])
