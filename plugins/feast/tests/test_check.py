"""The check of each run of `make test`: with the three lines in its settings, Feast materializes, reads and joins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from feast import Entity, FeatureStore
from feast.value_type import ValueType

from tests.worlds.feast_repo import ENGINE, OFFLINE, ONLINE, UTC_US, FeastRepo

_SETTINGS = f"""
project: checked
registry: {{folder}}/registry.db
provider: local
offline_store: {OFFLINE}
online_store:
  type: {ONLINE}
  redis_url: {{url}}
batch_engine: {ENGINE}
entity_key_serialization_version: 3
"""
DAY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
def test_what_feast_materializes_is_what_it_joins(tmp_path: Path, server_url: str) -> None:
    repo = FeastRepo(
        tmp_path, Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64), {"timestamp_field": "event"}
    )
    big = 2**53 + 1
    times = pa.array([DAY, DAY + timedelta(hours=1)], UTC_US)
    repo.write("v.parquet", {"card_id": [big, big], "event": times, "x": [0.1, 0.1 + 0.2]})
    (tmp_path / "feature_store.yaml").write_text(_SETTINGS.format(folder=tmp_path, url=server_url))
    store, view = FeatureStore(repo_path=str(tmp_path)), repo.view()
    store.apply([Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64), view])
    store.materialize(DAY - timedelta(days=1), DAY + timedelta(days=1))
    online = store.get_online_features(["v:x"], [{"card_id": big}]).to_dict()
    asked = pd.DataFrame({"card_id": [big], "event_timestamp": [DAY + timedelta(hours=2)]})
    joined = store.get_historical_features(asked, ["v:x"]).to_arrow()
    assert online["x"] == joined["x"].to_pylist() == [0.1 + 0.2]
