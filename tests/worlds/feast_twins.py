"""The same Feast project twice: on Feast's own stores, the oracle, and on ours, in one real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from feast import FeatureStore, FeatureView, Field, FileSource, PushSource
from feast.types import Bool, Bytes, Float32, Float64, Int32, Int64, PrimitiveFeastType, String, UnixTimestamp

from tests.worlds.feast_repo import ENGINE, ONLINE, USER

Kind = Literal["feast", "skewless"]

NOW = datetime.now(UTC).replace(microsecond=250_000)
TYPES: dict[str, tuple[PrimitiveFeastType, pa.DataType]] = {
    "a_double": (Float64, pa.float64()),
    "a_float": (Float32, pa.float32()),
    "an_int64": (Int64, pa.int64()),
    "an_int32": (Int32, pa.int32()),
    "a_bool": (Bool, pa.bool_()),
    "a_text": (String, pa.string()),
    "some_bytes": (Bytes, pa.binary()),
    "a_time": (UnixTimestamp, pa.timestamp("us", tz="UTC")),
}


def ago(**length: float) -> datetime:
    """Return a moment before now."""
    return NOW - timedelta(**length)


@dataclass(frozen=True)
class Twin:
    """One of the two projects."""

    kind: Kind
    repo: Path

    def store(self) -> FeatureStore:
        """Open the project anew, as another process would."""
        return FeatureStore(repo_path=str(self.repo))

    def write(self, name: str, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        """Publish a Parquet file of the repo, whole."""
        path = self.repo / name
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


def configure(kind: Kind, repo: Path, port: int, **more: Any) -> Twin:  # noqa: ANN401 - lines of YAML
    """Write the feature_store.yaml of a twin; the two projects share the server and the name."""
    stores: dict[str, Any] = {
        "feast": {"online_store": {"type": "redis", "connection_string": f"127.0.0.1:{port},db=0"}},
        "skewless": {
            "online_store": {"type": ONLINE, "redis_url": f"redis://127.0.0.1:{port}/1"},
            "batch_engine": {"type": ENGINE},
        },
    }
    body = {
        "project": "twins",
        "registry": "registry.db",
        "provider": "local",
        "offline_store": {"type": "duckdb"},
        "entity_key_serialization_version": 3,
    }
    repo.mkdir(parents=True, exist_ok=True)
    (repo / "feature_store.yaml").write_text(yaml.safe_dump({**body, **stores[kind], **more}))
    return Twin(kind, repo)


def source(repo: Path, name: str = "users") -> FileSource:
    """Return the source of a view of users."""
    return FileSource(
        name=f"{name}_source",
        path=str(repo / f"{name}.parquet"),
        timestamp_field="event_time",
        created_timestamp_column="created",
    )


def users(repo: Path, *, ttl: timedelta = timedelta(days=10), names: Sequence[str] = tuple(TYPES)) -> FeatureView:
    """Return a view of users that may also be pushed to."""
    return FeatureView(
        name="users",
        entities=[USER],
        ttl=ttl,
        source=PushSource(name="users_push", batch_source=source(repo)),
        schema=[Field(name="user_id", dtype=Int64), *(Field(name=name, dtype=TYPES[name][0]) for name in names)],
    )


def schema(names: Sequence[str] = tuple(TYPES)) -> pa.Schema:
    """Return the columns of the source of users."""
    stamp = pa.timestamp("us", tz="UTC")
    columns = [(name, TYPES[name][1]) for name in names]
    return pa.schema([("user_id", pa.int64()), ("event_time", stamp), ("created", stamp), *columns])


def row(user: int, event: datetime, created: datetime | None = None, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - of any type
    """Return a row of users; what is not given is null."""
    return {"user_id": user, "event_time": event, "created": created or event, **values}


def frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as they are pushed."""
    return pd.DataFrame(list(rows))


Reads = Callable[[FeatureStore, list[str], list[dict[str, Any]]], Any]


def read_sync(store: FeatureStore, features: list[str], entities: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - Feast's response
    """Read online."""
    return store.get_online_features(features=features, entity_rows=entities)


def read_async(store: FeatureStore, features: list[str], entities: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - Feast's response
    """Read online from an event loop."""

    async def read() -> Any:  # noqa: ANN401 - Feast's response
        try:
            return await store.get_online_features_async(features=features, entity_rows=entities)
        finally:
            await store.close()
            await close_feasts_client(store)

    return asyncio.run(read())


async def close_feasts_client(store: FeatureStore) -> None:
    """Close what Feast's Redis store leaves open, bound to a loop that is about to end."""
    online: Any = store._get_provider().online_store
    client = getattr(online, "_client_async", None)
    if client is not None:
        await client.aclose()
        online._client_async = None


def stamps(response: Any) -> dict[str, list[int]]:  # noqa: ANN401 - Feast's response
    """Return the event time of each value in microseconds, by feature."""
    names = response.proto.metadata.feature_names.val
    return {
        name: [stamp.ToMicroseconds() for stamp in vector.event_timestamps]
        for name, vector in zip(names, response.proto.results, strict=True)
    }


def statuses(response: Any) -> dict[str, list[str]]:  # noqa: ANN401 - Feast's response
    """Return the status of each value, by feature."""
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus  # noqa: PLC0415 - generated, slow to load

    names = response.proto.metadata.feature_names.val
    return {
        name: [FieldStatus.Name(status) for status in vector.statuses]
        for name, vector in zip(names, response.proto.results, strict=True)
    }
