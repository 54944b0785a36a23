"""One Feast project on our three classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import yaml
from feast import FeatureStore, FeatureView, PushSource
from feast.types import FeastType

from plugins.feast.tests.conformance.value_types import STAMP
from tests.worlds.feast_repo import ENGINE, OFFLINE, ONLINE, USER, FeastRepo

NOW = datetime.now(UTC).replace(microsecond=0)
PROVIDERS = {"local": "local", "skewless": "skewless_feast.provider.SkewlessProvider"}


def ago(**length: float) -> datetime:
    """Return a moment before now."""
    return NOW - timedelta(**length)


class ConformanceProject(FeastRepo):
    """A repo with its store."""

    def __init__(self, root: Path, port: int, provider: str = "skewless", **more: Any) -> None:  # noqa: ANN401 - lines of YAML
        super().__init__(root, USER, {"timestamp_field": "event_time", "created_timestamp_column": "created"})
        self.state = root / ".skewless"
        body = {
            "project": f"c{uuid4().hex}",
            "registry": "registry.db",
            "provider": PROVIDERS[provider],
            "offline_store": {"type": OFFLINE},
            "online_store": {"type": ONLINE, "redis_url": f"redis://127.0.0.1:{port}/2"},
            "batch_engine": {"type": ENGINE},
            "entity_key_serialization_version": 3,
        }
        (root / "feature_store.yaml").write_text(yaml.safe_dump(body | more))

    @cached_property
    def store(self) -> FeatureStore:
        """The store."""
        return FeatureStore(repo_path=str(self.root))

    def apply(self, *objects: Any) -> None:  # noqa: ANN401 - any Feast object
        """Register definitions."""
        self.store.apply([USER, *objects])

    def pushed(self, name: str, features: Mapping[str, FeastType] | None = None, **options: Any) -> FeatureView:  # noqa: ANN401 - of ``view``
        """Return a view that may also be pushed to."""
        batch = options.pop("source", None) or self.source(f"{name}.parquet")
        source = PushSource(name=f"{name}_push", batch_source=batch)
        return self.view(name, features, source=source, **({"ttl": timedelta(days=10)} | options))

    def online(self, features: Any, rows: Any, **options: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - Feast's
        """Return an online read."""
        answer: dict[str, list[Any]] = self.store.get_online_features(features, rows, **options).to_dict()
        return answer

    def offline(self, features: Any, rows: Any, **options: Any) -> pa.Table:  # noqa: ANN401 - Feast's
        """Return a historical retrieval."""
        return self.store.get_historical_features(rows, features, **options).to_arrow()


def plain_name(name: str) -> str:
    """Return the name of a value type's feature.

    >>> plain_name("Array(Int64)")
    'array_int64_'
    """
    return name.lower().replace("(", "_").replace(")", "_")


def table_of(ids: Sequence[int], at: datetime | None = None, **columns: Any) -> dict[str, Any]:  # noqa: ANN401 - Arrow's or lists
    """Return rows of users that happened at one time."""
    times = pa.array([at or ago(hours=1)] * len(ids), STAMP)
    return {"user_id": pa.array(ids, pa.int64()), "event_time": times, "created": times, **columns}


def asked(*ids: int, **columns: Any) -> pd.DataFrame:  # noqa: ANN401 - of any type
    """Return entity rows for historical retrievals."""
    return pd.DataFrame({"user_id": list(ids), "event_timestamp": [NOW] * len(ids), **columns})
