"""Windowed views through Feast's online reads: what our own reader says at the same moment, bit for bit."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from skewless.contract.errors import RequestError, StalePlanError
from skewless.contract.keys import generation_key, window_marker
from skewless.infra.log.generations import Generations
from tests.worlds.applied_plans import delete_plans
from tests.worlds.feast_twins import statuses
from tests.worlds.windowed import HOUR, MINUTE
from tests.worlds.windowed_feast import NUMBERS, WINDOWED, WindowedFeastProject, landing, some

MIXED = ["fleet", *NUMBERS, "worst_delay_1d", "last_landed_1d"]


def ask(
    windowed: WindowedFeastProject,
    features: Any,  # noqa: ANN401 - references or a service
    carriers: list[str | None],
    planes: list[int | None],
    **options: Any,  # noqa: ANN401 - Feast's
) -> Any:  # noqa: ANN401 - Feast's response
    """Return Feast's answer."""
    rows = [{"carrier": carrier, "plane": plane} for carrier, plane in zip(carriers, planes, strict=True)]
    return windowed.store.get_online_features(features, rows, **options)


def bits(values: list[float | None]) -> list[bytes | None]:
    """Return numbers as they lie in memory."""
    return [None if value is None else struct.pack("<d", value) for value in values]


@pytest.fixture
def landed(windowed: WindowedFeastProject) -> WindowedFeastProject:
    """A project in which events came, and rows of the batch view."""
    windowed.project.materialize(check=False)
    windowed.project.apply()
    windowed.store.push("landings", pd.DataFrame(some(40, windowed.now_us())))
    windowed.work(40)
    return windowed


def test_the_answer_is_that_of_our_own_reader(landed: WindowedFeastProject) -> None:
    carriers: list[str | None] = ["AA", "UA", "ZZ", None] * 3
    planes: list[int | None] = [0, 1, 9, 2] * 3
    for n in (1, 4, 12):
        response = ask(landed, landed.store.get_feature_service("mixed"), carriers[:n], planes[:n])
        t = response.proto.results[-1].event_timestamps[0].ToMicroseconds()
        reader = landed.project.feature_reader("mixed")
        own = reader.read(reader.parse({"carrier": carriers[:n], "plane": planes[:n]}), t)
        found = response.to_dict()
        for i, name in enumerate(MIXED):
            wanted = [None if np.isnan(value) else float(value) for value in own.matrix[:, i]]
            assert bits(found[name]) == bits(wanted), name


def test_training_sees_what_serving_saw(landed: WindowedFeastProject) -> None:
    service = landed.store.get_feature_service("mixed")
    online = ask(landed, service, ["AA", "UA", "ZZ"], [0, 1, 9])
    t = pd.to_datetime([online.proto.results[-1].event_timestamps[0].ToMicroseconds()] * 3, unit="us", utc=True)
    rows = pd.DataFrame({"carrier": ["AA", "UA", "ZZ"], "plane": [0, 1, 9], "event_timestamp": t})
    past = landed.store.get_historical_features(rows, service).to_arrow()
    for name in MIXED:
        assert bits(online.to_dict()[name]) == bits(past[name].to_pylist()), name


def test_a_transform_gets_arrays_from_feast_online_and_offline(landed: WindowedFeastProject) -> None:
    """Seconds since the last event: Feast hands on its own lists, and has no time of a prediction to give."""
    features = ["plane_now:last_landed_1d", "recency:seconds_since_last"]
    asked_at = pd.Timestamp(landed.now_us() // 10**6, unit="s", tz="UTC")
    rows = [{"plane": plane, "asked_at": asked_at.to_pydatetime()} for plane in (0, 1, 9)]
    online = landed.store.get_online_features(features, rows)
    t = pd.to_datetime([online.proto.results[1].event_timestamps[0].ToMicroseconds()] * 3, unit="us", utc=True)
    frame = pd.DataFrame({"plane": [0, 1, 9], "asked_at": [asked_at] * 3, "event_timestamp": t})
    past = landed.store.get_historical_features(frame, features).to_arrow()
    for found in (online.to_dict(), past.to_pydict()):
        last, seconds = found["last_landed_1d"], found["seconds_since_last"]
        assert last[2] is None
        assert seconds[2] is None or np.isnan(seconds[2])
        assert bits(seconds[:2]) == bits([(asked_at.value // 1_000 - one) / 1e6 for one in last[:2]])
    assert bits(online.to_dict()["last_landed_1d"]) == bits(past["last_landed_1d"].to_pylist())


def test_absent_entities_are_present_with_counts_of_nothing(landed: WindowedFeastProject) -> None:
    response = ask(landed, WINDOWED, ["AA", "ZZ", None], [0, 0, 0])
    found, status = response.to_dict(), statuses(response)
    assert found["landings_1h"][1:] == [0.0, None]
    assert found["mean_delay_1h"][1:] == [None, None]
    assert status["landings_1h"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
    assert status["mean_delay_1h"] == ["PRESENT", "NULL_VALUE", "NOT_FOUND"]


def test_windows_move_without_an_event(landed: WindowedFeastProject) -> None:
    before = ask(landed, WINDOWED, ["AA"], [0]).to_dict()
    landed.project.clock.set(landed.now_us() + 2 * HOUR)  # type: ignore[attr-defined]  # it is a clock of tests
    after = ask(landed, WINDOWED, ["AA"], [0]).to_dict()
    assert before["landings_1h"][0] > after["landings_1h"][0] == 0.0
    assert before["flights_7d"] == after["flights_7d"]


def test_names_are_full_where_they_are_asked_for(landed: WindowedFeastProject) -> None:
    found = ask(landed, ["carrier_now:late_1h", "facts:fleet"], ["AA"], [0], full_feature_names=True).to_dict()
    assert set(found) == {"carrier", "plane", "carrier_now__late_1h", "facts__fleet"}
    assert found["facts__fleet"] == [950]


def test_one_view_is_read_by_itself(landed: WindowedFeastProject) -> None:
    online: Any = landed.store._get_provider().online_store
    view = landed.store.get_stream_feature_view("carrier_now")
    keys = [EntityKey(join_keys=["carrier"], entity_values=[Value(string_val=name)]) for name in ("AA", "ZZ")]
    rows = online.online_read(landed.store.config, view, keys, ["landings_1h", "mean_delay_1h"])
    found = ask(landed, WINDOWED, ["AA", "ZZ"], [0, 0]).to_dict()
    assert [row[1]["landings_1h"].double_val for row in rows] == found["landings_1h"]
    assert rows[1][1]["mean_delay_1h"].WhichOneof("val") is None
    assert [sorted(row[1]) for row in online.online_read(landed.store.config, view, keys)] == [sorted(NUMBERS)] * 2
    assert online.online_read(landed.store.config, view, []) == []


def test_states_that_are_missing_or_lost_are_not_found(landed: WindowedFeastProject) -> None:
    carriers: list[str | None] = ["AA"]
    plan = landed.project.applied.plan
    view = plan.window("carrier_now")
    live = Generations(landed.project.state).find_live(view)
    assert live is not None
    name = window_marker(plan.project, view, live.number, live.partitions[0])
    landed.online.delete(name)
    lost = ask(landed, [*WINDOWED, "facts:fleet"], carriers, [0])
    assert set(statuses(lost)["landings_1h"]) == {"NOT_FOUND"}
    assert lost.to_dict()["landings_1h"] == [None]
    assert lost.to_dict()["fleet"] == [950]
    landed.online.delete(generation_key(plan.project, view).decode())
    provider: Any = landed.store._get_provider()
    provider.online_store._windows = None  # as in a process that starts now
    assert statuses(ask(landed, WINDOWED, carriers, [0]))["landings_1h"] == ["NOT_FOUND"]


def test_what_the_plan_does_not_have_is_refused(landed: WindowedFeastProject) -> None:
    with pytest.raises(RequestError, match="windowed view 'carrier_now': has no such feature"):
        ask(landed, ["carrier_now:carrier"], ["AA"], [0])
    delete_plans(landed.project.state)
    provider: Any = landed.store._get_provider()
    provider.online_store._windows = None  # as in a process that starts now
    with pytest.raises(StalePlanError, match="skewless apply"):
        ask(landed, WINDOWED, ["AA"], [0])


def test_an_event_is_seen_by_the_next_read(landed: WindowedFeastProject) -> None:
    before = ask(landed, WINDOWED, ["QQ"], [0]).to_dict()
    now = landed.now_us()
    landed.store.push("landings", pd.DataFrame([landing(900, "QQ", MINUTE, now, arr_delay=20.0)]))
    landed.work(41)
    after = ask(landed, WINDOWED, ["QQ"], [0]).to_dict()
    assert (before["landings_1h"], after["landings_1h"]) == ([0.0], [1.0])
    assert after["late_1h"] == [1.0]
