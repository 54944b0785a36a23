"""Pushes to event sources, and what Feast's other writing verbs do to windowed views."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast.data_source import PushMode
from structlog.testing import capture_logs

from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError, StoreError
from skewless.contract.windows.hops import SECOND
from skewless_feast.online_windows import EventPusher, event_payloads
from tests.servers.node import Node
from tests.worlds.applied_plans import edit_plan
from tests.worlds.edits import edit
from tests.worlds.windowed import HOUR
from tests.worlds.windowed_feast import NUMBERS, WINDOWED, WindowedFeastProject, landing, some


def landings(windowed: WindowedFeastProject, carrier: str = "AA") -> list[float | None]:
    """Return a feature of one carrier."""
    values: list[float | None] = windowed.store.get_online_features(WINDOWED, [{"carrier": carrier}]).to_dict()[
        "landings_1h"
    ]
    return values


@pytest.mark.parametrize("mode", list(PushMode))
def test_rows_become_events_once_however_many_views_read_them(windowed: WindowedFeastProject, mode: PushMode) -> None:
    windowed.store.push("landings", pd.DataFrame(some(6, windowed.now_us())), to=mode)
    windowed.work(6)
    assert (windowed.worker.counts.accepted, windowed.worker.counts.duplicates) == (6, 0)
    assert landings(windowed) == [3.0]


def test_a_push_may_be_awaited(windowed: WindowedFeastProject) -> None:
    asyncio.run(windowed.store.push_async("landings", pd.DataFrame(some(6, windowed.now_us()))))
    windowed.work(6)
    assert landings(windowed) == [3.0]


def test_what_does_not_fit_goes_to_quarantine(windowed: WindowedFeastProject) -> None:
    now = windowed.now_us()
    rows = [landing(1, "AA", SECOND, now), landing(2, None, SECOND, now, plane=None), landing(3, "AA", -HOUR, now)]
    windowed.store.push("landings", pd.DataFrame(rows))
    windowed.work(3)
    assert (windowed.worker.counts.accepted, windowed.worker.counts.rejected) == (1, 2)


def test_values_are_sent_as_the_source_declares_them(windowed: WindowedFeastProject) -> None:
    source = windowed.project.applied.plan.sources[0]
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
    with pytest.raises(RequestError, match="a value that is not JSON"):
        event_payloads(source, frame.assign(carrier=[b"x", b"y"]))
    with pytest.raises(RequestError, match="without the event time column"):
        event_payloads(source, frame.drop(columns="landed_at"))


def test_a_source_that_feeds_a_batch_view_too(windowed: WindowedFeastProject) -> None:
    both = """
last_landing = FeatureView(
    name="last_landing", entities=[carrier], source=landings,
    schema=[Field(name="carrier", dtype=String), Field(name="arr_delay", dtype=Float64)],
)
"""
    edit(windowed.repo, "carrier_now = Stream", both + "\n\ncarrier_now = Stream")
    store: Any = windowed.store
    frame = pd.DataFrame(some(6, windowed.now_us()))
    stamped = frame.assign(landed_at=pd.to_datetime(frame["landed_at"], unit="us", utc=True))
    stamped = stamped.assign(written=stamped["landed_at"])
    stamped.to_parquet(windowed.repo / "data/landings.parquet", index=False)
    windowed.project.apply()
    store.refresh_registry()
    store.push("landings", stamped)
    windowed.work(6)
    found = store.get_online_features(["last_landing:arr_delay", *WINDOWED], [{"carrier": "AA"}]).to_dict()
    assert (found["arr_delay"], found["landings_1h"]) == ([40.5], [3.0])


def test_features_are_not_written(windowed: WindowedFeastProject) -> None:
    times = {name: [from_us(windowed.now_us())] for name in ("landed_at", "written")}
    frame = pd.DataFrame({"carrier": ["AA"], **times, **{name: [1.0] for name in NUMBERS}})
    store = windowed.store
    with pytest.raises(RequestError, match=r"windowed view 'carrier_now': has no rows .*push events to its source"):
        store.write_to_online_store("carrier_now", frame)
    with pytest.raises(RequestError, match="windowed view 'carrier_now'"):
        asyncio.run(store.write_to_online_store_async("carrier_now", frame))
    with pytest.raises(RequestError, match="windowed view 'carrier_now'"):
        store.provider.ingest_df(store.get_stream_feature_view("carrier_now"), frame)


def test_materialising_goes_on_with_the_other_views(windowed: WindowedFeastProject) -> None:
    with capture_logs() as logs:
        windowed.store.materialize_incremental(from_us(windowed.now_us()))
    assert sorted(log["view"] for log in logs if log["event"] == "windowed_view_skipped") == [
        "carrier_now",
        "plane_now",
    ]
    found = windowed.store.get_online_features(["facts:fleet", *WINDOWED], [{"carrier": "AA"}]).to_dict()
    assert (found["fleet"], found["landings_1h"]) == ([950], [0.0])


def test_a_source_that_was_not_applied_is_refused(windowed: WindowedFeastProject) -> None:
    edit_plan(windowed.project.state, lambda body: body["plan"].pop("sources"))
    with pytest.raises(RequestError, match="event source: is not in the applied plan"):
        windowed.store.push("landings", pd.DataFrame(some(1, windowed.now_us())))


def test_a_stream_that_is_away_is_tried_again(windowed: WindowedFeastProject, valkey: Node) -> None:
    frame = pd.DataFrame(some(2, windowed.now_us()))
    settings = windowed.project.settings
    away = EventPusher(windowed.project.state, settings, windowed.project.applied.plan.project, "redis://127.0.0.1:1/0")
    nowhere = EventPusher(windowed.project.state, settings, windowed.project.applied.plan.project, "no-url")
    for pusher in (away, away, nowhere):
        with pytest.raises(StoreError):
            pusher.push("landings", frame)
        pusher.close()
    back = EventPusher(windowed.project.state, settings, windowed.project.applied.plan.project, valkey.url)
    back.push("landings", frame)
    back.close()
    windowed.work(2)
    assert windowed.worker.counts.accepted == 2
