"""One Feast project under two offline stores: ours, and Feast's own on DuckDB as oracle where it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from feast import Entity, FeatureStore, RepoConfig
from feast.value_type import ValueType

from tests.worlds.feast_repo import OFFLINE, UTC_US, FeastRepo

Kind = Literal["skewless", "feast"]
TYPES: Mapping[Kind, str] = {
    "skewless": OFFLINE,
    "feast": "duckdb",
}
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


class OfflineWorld(FeastRepo):
    """A repo; sources lie in it, and each store has a registry of its own."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, key(), {"timestamp_field": "event"})
        self.stores: dict[Kind, FeatureStore] = {}

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
