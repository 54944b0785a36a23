"""A Feast repo of which a test says what is in it, and the names of our three classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import FeastType, Float64, Int64
from feast.value_type import ValueType

ONLINE = "skewless_feast.online_store.SkewlessOnlineStore"
OFFLINE = "skewless_feast.offline_store.SkewlessOfflineStore"
ENGINE = "skewless_feast.engine.SkewlessComputeEngine"
UTC_US = pa.timestamp("us", tz="UTC")
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)


class FeastRepo:
    """A folder with sources, and views of them that are keyed by one entity unless they say otherwise.

    Args:
        key: that entity, an integer.
        times: what each source says of its times.
    """

    def __init__(self, root: Path, key: Entity, times: Mapping[str, str]) -> None:
        self.root, self._key, self._times = root, key, dict(times)

    def write(self, path: str, columns: Mapping[str, Any] | pa.Table) -> Path:
        """Publish a Parquet file."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), place)
        return place

    def source(self, path: str = "v.parquet", **options: Any) -> FileSource:  # noqa: ANN401 - Feast's
        """Return a source of the repo."""
        # Absolute, since Feast's own store looks from the working folder.
        return FileSource(**({"name": f"{path}_source", "path": str(self.root / path)} | self._times | options))

    def view(
        self,
        name: str = "v",
        features: Mapping[str, FeastType] | None = None,
        *,
        entities: Sequence[Entity] | None = None,
        keys: Mapping[str, FeastType] | None = None,
        source: Any = None,  # noqa: ANN401 - any data source
        ttl: timedelta = timedelta(0),
        **options: Any,  # noqa: ANN401 - Feast's
    ) -> FeatureView:
        """Return a view; its source is a file of its name."""
        typed = dict(keys if keys is not None else {self._key.join_key: Int64}) | dict(features or {"x": Float64})
        return FeatureView(
            name=name,
            entities=list(entities if entities is not None else [self._key]),
            schema=[Field(name=field, dtype=dtype) for field, dtype in typed.items()],
            source=source if source is not None else self.source(f"{name}.parquet"),
            ttl=ttl,
            **options,
        )


def users_of(*ids: int | None) -> list[dict[str, Any]]:
    """Return entity rows of users for online reads."""
    return [{"user_id": user} for user in ids]


def tear_down(store: FeatureStore) -> None:
    """Tear a project down."""
    verbs: Any = store  # Feast gives the verb no types
    verbs.teardown()
