"""Windowed views through Feast's retrievals: what the accepted log says, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from plugins.feast.tests.windows.conftest import MakeWindowed
from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.join import Order
from tests.worlds.windowed import HOUR, MINUTE, NOW, STAMP
from tests.worlds.windowed_feast import NUMBERS, WINDOWED, WindowedFeastProject, landing, some

AGO = [0, 3 * MINUTE, HOUR, 2 * HOUR, 9 * HOUR, 30 * 24 * HOUR]
CARRIERS = ["AA", "UA", "AA", "ZZ", "UA", "AA"]
PLANES = [0, 1, 2, 0, 1, 2]
OF_PLANES = ["worst_delay_1d", "last_landed_1d", "delays_1", "delays_2", "delays_3"]


def filled(windowed: WindowedFeastProject) -> WindowedFeastProject:
    """Let events come: most at once, one that was late by far."""
    windowed.build()
    windowed.project.materialize(check=False)
    windowed.project.apply()
    windowed.store.push("landings", pd.DataFrame(some(40, NOW)))
    windowed.work(40)
    windowed.project.clock.set(NOW + HOUR)  # type: ignore[attr-defined]  # it is a clock of tests
    windowed.store.push("landings", pd.DataFrame([landing(800, "AA", HOUR, NOW, arr_delay=99.0)]))
    windowed.work(41)
    return windowed


@pytest.fixture
def known(make_windowed: MakeWindowed) -> WindowedFeastProject:
    """A project whose retrievals are in knowledge time."""
    return filled(make_windowed(time_mode="knowledge"))


@pytest.fixture
def happened(make_windowed: MakeWindowed) -> WindowedFeastProject:
    """A project whose retrievals are in event time."""
    return filled(make_windowed())


def entity_df(**more: Sequence[Any]) -> pd.DataFrame:
    times = pd.to_datetime([NOW + 30 * MINUTE - ago for ago in AGO], unit="us", utc=True)
    columns: Mapping[str, Any] = {"carrier": CARRIERS, "plane": PLANES, "event_timestamp": times, **more}
    return pd.DataFrame(columns)


def expected(windowed: WindowedFeastProject, order: Order) -> dict[str, list[float | None]]:
    """Return what our own offline views say."""
    plan = windowed.project.applied.plan
    rows = pa.table({"carrier": CARRIERS, "plane": PLANES, TIME: [NOW + 30 * MINUTE - ago for ago in AGO]})
    found: dict[str, list[float | None]] = {}
    for view in plan.windows:
        read = windowed.project.views.read_window(view, rows, order)
        for column in view.features:
            values = pa.array(read.values[column.name], mask=read.nulls[column.name])
            found[column.name] = values.to_pylist()
    return found


def columns_of(table: pa.Table, names: Sequence[str]) -> dict[str, list[float | None]]:
    return {name: table[name].to_pylist() for name in names}


def test_a_service_of_both_kinds_is_answered_in_event_time(happened: WindowedFeastProject) -> None:
    store = happened.store
    table = store.get_historical_features(entity_df(), store.get_feature_service("mixed")).to_arrow()
    own = expected(happened, "event_time")
    assert columns_of(table, [*NUMBERS, *OF_PLANES]) == own
    assert own["landings_1h"][0] == 3.0
    assert [own[name][0] for name in ("delays_1", "delays_2", "delays_3")] == [40.5, 22.5, 13.5]
    assert table["fleet"].to_pylist() == [950, 880.5, 950, None, 880.5, None]
    assert table["carrier"].to_pylist() == CARRIERS
    assert table.column_names == ["carrier", "plane", "event_timestamp", "fleet", *NUMBERS, *OF_PLANES]


def test_an_option_asks_for_what_was_known(known: WindowedFeastProject) -> None:
    table = known.store.get_historical_features(
        entity_df(), [*WINDOWED, *(f"plane_now:{name}" for name in OF_PLANES)]
    ).to_arrow()
    own = expected(known, "knowledge")
    assert columns_of(table, [*NUMBERS, *OF_PLANES]) == own
    assert own != expected(known, "event_time")


def test_feasts_own_switch_asks_for_what_was_known(happened: WindowedFeastProject) -> None:
    asked = happened.store.get_historical_features(entity_df(), WINDOWED, filter_by_created_timestamp=True)
    own = expected(happened, "knowledge")
    assert columns_of(asked.to_arrow(), NUMBERS) == {name: own[name] for name in NUMBERS}


def test_full_names_and_chosen_features(happened: WindowedFeastProject) -> None:
    refs = ["carrier_now:late_1h", "facts:fleet", "carrier_now:mean_delay_1h"]
    frame = happened.store.get_historical_features(entity_df(), refs, full_feature_names=True).to_df()
    assert list(frame.columns[3:]) == ["carrier_now__late_1h", "facts__fleet", "carrier_now__mean_delay_1h"]


def test_rows_without_a_key_or_a_time_find_nothing(happened: WindowedFeastProject) -> None:
    times = pa.array([NOW, NOW, None], pa.int64()).cast(STAMP)
    rows: Any = pa.table({"carrier": ["AA", None, "AA"], "plane": [0.0, 1.0, 2.5], "event_timestamp": times})
    store = happened.store
    found = store.get_historical_features(rows, ["carrier_now:landings_1h", "plane_now:worst_delay_1d"]).to_arrow()
    assert [value is None for value in found["landings_1h"].to_pylist()] == [False, True, True]
    assert [value is None for value in found["worst_delay_1d"].to_pylist()] == [False, False, True]


def test_times_are_floored_to_the_millisecond_as_in_serving(happened: WindowedFeastProject) -> None:
    happened.store.push("landings", pd.DataFrame([landing(900, "MS", 0, NOW + 500)]))
    happened.work(42)
    times = pa.array([NOW + 499, NOW + 999, NOW + 1_000], pa.int64()).cast(STAMP)
    rows: Any = pa.table({"carrier": ["MS"] * 3, "event_timestamp": times})
    found = happened.store.get_historical_features(rows, ["carrier_now:landings_1h"]).to_arrow()
    assert found["landings_1h"].to_pylist() == [0.0, 0.0, 1.0]


def test_entity_rows_in_sql_and_none(happened: WindowedFeastProject) -> None:
    store = happened.store
    query = f"SELECT 'AA' AS carrier, make_timestamptz({NOW}) AS event_timestamp"
    found = store.get_historical_features(query, ["carrier_now:landings_1h", "facts:fleet"]).to_arrow()
    assert (found["landings_1h"].to_pylist(), found["fleet"].to_pylist()) == ([5.0], [950])
    start, end = from_us(NOW - HOUR), from_us(NOW)
    every = store.get_historical_features(None, WINDOWED, start_date=start, end_date=end).to_arrow()
    assert every["carrier"].to_pylist() == ["AA", "UA"]
    assert every["landings_1h"].to_pylist()[0] == 5.0
    never = store.get_historical_features(None, WINDOWED, start_date=from_us(0), end_date=from_us(1)).to_arrow()
    assert never.num_rows == 0


def test_a_log_without_events_gives_counts_of_nothing(make_windowed: MakeWindowed) -> None:
    store = make_windowed().store
    table = store.get_historical_features(entity_df(), WINDOWED).to_arrow()
    assert table["landings_1h"].to_pylist() == [0.0] * len(AGO)
    assert table["mean_delay_1h"].null_count == len(AGO)
    none = store.get_historical_features(None, WINDOWED, start_date=from_us(0), end_date=from_us(NOW)).to_arrow()
    assert none.num_rows == 0


def test_what_cannot_be_answered_is_refused(happened: WindowedFeastProject) -> None:
    store = happened.store
    with pytest.raises(RequestError, match="have no key of windowed view 'carrier_now'"):
        store.get_historical_features(entity_df().drop(columns="carrier"), WINDOWED).to_arrow()
    with pytest.raises(RequestError, match="has type BIGINT in the entity rows"):
        store.get_historical_features(entity_df(carrier=[1] * len(AGO)), WINDOWED).to_arrow()
    with pytest.raises(RequestError, match="has no such feature"):
        store.get_historical_features(entity_df(), ["carrier_now:carrier"], full_feature_names=True).to_arrow()
