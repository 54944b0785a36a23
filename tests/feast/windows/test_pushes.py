"""Pushes to event sources, and what Feast's other writing verbs do to windowed views."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore
from feast.data_source import PushMode
from structlog.testing import capture_logs

from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError, StoreError
from skewless.infra.feast_plugins.online_store import SkewlessOnlineStore, SkewlessOnlineStoreConfig
from skewless.infra.feast_plugins.pushed_events import EventPusher, event_payloads
from skewless.infra.feast_plugins.store_verbs import teach_pushes
from tests.worlds.windowed_feast import HOUR, NUMBERS, SECOND, WINDOWED, World, landing, some


def landings(world: World, carrier: str = "AA") -> list[float | None]:
    """Return a feature of one carrier."""
    values: list[float | None] = world.store.get_online_features(WINDOWED, [{"carrier": carrier}]).to_dict()[
        "landings_1h"
    ]
    return values


@pytest.mark.parametrize("mode", list(PushMode))
def test_rows_become_events_once_however_many_views_read_them(world: World, mode: PushMode) -> None:
    world.store.push("landings", pd.DataFrame(some(6, world.now_us())), to=mode)
    world.work(6)
    assert (world.worker.tally.accepted, world.worker.tally.duplicates) == (6, 0)
    assert landings(world) == [3.0]


def test_a_push_may_be_awaited(world: World) -> None:
    asyncio.run(world.store.push_async("landings", pd.DataFrame(some(6, world.now_us()))))
    world.work(6)
    assert landings(world) == [3.0]


def test_what_does_not_fit_goes_to_quarantine(world: World) -> None:
    now = world.now_us()
    rows = [landing(1, "AA", SECOND, now), landing(2, None, SECOND, now, plane=None), landing(3, "AA", -HOUR, now)]
    world.store.push("landings", pd.DataFrame(rows))
    world.work(3)
    assert (world.worker.tally.accepted, world.worker.tally.rejected) == (1, 2)


def test_values_are_sent_as_the_source_declares_them(world: World) -> None:
    source = world.project.applied.plan.sources[0]
    moment = datetime(2026, 1, 15, 11, tzinfo=UTC)
    frame = pd.DataFrame(
        {
            "landed_at": pd.to_datetime([moment, moment]),
            "carrier": ["Ä", None],
            "plane": pd.array([2**53 + 1, None], dtype="Int64"),
            "flight": [7, None],
            "arr_delay": [np.nan, np.inf],
            "cancelled": [True, None],
            "other": [object(), object()],
        }
    )
    first, second = (json.loads(payload) for payload in event_payloads(source, frame))
    assert first == {
        "landed_at": int(moment.timestamp()) * SECOND,
        "carrier": "Ä",
        "plane": 2**53 + 1,
        "flight": 7,
        "arr_delay": None,
        "cancelled": True,
    }
    assert isinstance(first["flight"], int)
    assert second == {**dict.fromkeys(first), "landed_at": first["landed_at"], "arr_delay": np.inf}
    naive = frame.assign(landed_at=[datetime(2026, 1, 15, 11), "2026"])  # noqa: DTZ001 - UTC, as in Feast
    with pytest.raises(RequestError, match="column 'landed_at': was sent values that have no common type"):
        event_payloads(source, naive)
    with pytest.raises(RequestError, match="what JSON cannot hold"):
        event_payloads(source, frame.assign(carrier=[b"x", b"y"]))
    with pytest.raises(RequestError, match="without the time of its events"):
        event_payloads(source, frame.drop(columns="landed_at"))


def test_a_source_that_feeds_a_batch_view_too(world: World) -> None:
    path = world.repo / "definitions.py"
    both = """
from feast import Field as F
last_landing = FeatureView(
    name="last_landing", entities=[carrier], source=landings,
    schema=[F(name="carrier", dtype=String), F(name="arr_delay", dtype=Float64)],
)
"""
    path.write_text(path.read_text().replace("carrier_now = Stream", both + "\n\ncarrier_now = Stream"))
    store: Any = world.store
    frame = pd.DataFrame(some(6, world.now_us()))
    stamped = frame.assign(landed_at=pd.to_datetime(frame["landed_at"], unit="us", utc=True))
    (world.repo / "data").joinpath("landings.parquet").parent.mkdir(exist_ok=True)
    stamped.to_parquet(world.repo / "data/landings.parquet", index=False)
    world.project.apply()
    store.refresh_registry()
    store.push("landings", stamped)
    world.work(6)
    found = store.get_online_features(["last_landing:arr_delay", *WINDOWED], [{"carrier": "AA"}]).to_dict()
    assert (found["arr_delay"], found["landings_1h"]) == ([40.5], [3.0])


def test_features_are_not_written(world: World) -> None:
    frame = pd.DataFrame({"carrier": ["AA"], "landed_at": [from_us(world.now_us())], **{n: [1.0] for n in NUMBERS}})
    store = world.store
    with pytest.raises(RequestError, match=r"windowed view 'carrier_now': has no rows .*push events to its source"):
        store.write_to_online_store("carrier_now", frame)
    with pytest.raises(RequestError, match="windowed view 'carrier_now'"):
        asyncio.run(store.write_to_online_store_async("carrier_now", frame[["carrier"]]))
    provider: Any = store._get_provider()
    with pytest.raises(RequestError, match="windowed view 'carrier_now'"):
        provider.ingest_df(store.get_stream_feature_view("carrier_now"), frame)


def test_materialising_goes_on_with_the_other_views(world: World) -> None:
    with capture_logs() as logs:
        world.store.materialize_incremental(from_us(world.now_us()))
    assert sorted(log["view"] for log in logs if log["event"] == "windowed_view_left_out") == [
        "carrier_now",
        "plane_now",
    ]
    found = world.store.get_online_features(["carrier_facts:fleet", *WINDOWED], [{"carrier": "AA"}]).to_dict()
    assert (found["fleet"], found["landings_1h"]) == ([950], [0.0])


def test_a_source_that_was_not_applied_is_refused(world: World) -> None:
    plan = world.project.state / "plan.json"
    plan.write_text(plan.read_text().replace('"sources"', '"no_sources"'))
    with pytest.raises(RequestError, match="event source: is not in the applied plan"):
        world.store.push("landings", pd.DataFrame(some(1, world.now_us())))


def test_a_stream_that_is_away_is_tried_again(world: World, address: str) -> None:
    frame = pd.DataFrame(some(2, world.now_us()))
    settings = world.project.settings
    away = EventPusher(world.project.state, settings, world.project.applied.plan.project, "redis://127.0.0.1:1/0")
    nowhere = EventPusher(world.project.state, settings, world.project.applied.plan.project, "no-url")
    for pusher in (away, away, nowhere):
        with pytest.raises(StoreError):
            pusher.push("landings", frame)
        pusher.close()
    back = EventPusher(world.project.state, settings, world.project.applied.plan.project, address)
    back.push("landings", frame)
    back.close()
    world.work(2)
    assert world.worker.tally.accepted == 2


def test_feast_is_wrapped_once() -> None:
    verbs: Any = FeatureStore
    teach_pushes(SkewlessOnlineStoreConfig, SkewlessOnlineStore)
    before = verbs.push
    teach_pushes(SkewlessOnlineStoreConfig, SkewlessOnlineStore)
    assert verbs.push is before
