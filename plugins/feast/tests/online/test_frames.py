"""Pushes through our provider: what Feast's own conversion gives, and what it loses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore, FeatureView

from plugins.feast.tests.online.conftest import Make
from plugins.feast.tests.online.test_reads import ALL, FULL, lists
from skewless.contract.clock import to_us
from skewless.contract.errors import SourceError
from skewless_feast.online_store import SkewlessOnlineStore
from tests.worlds.feast_repo import USER, users_of
from tests.worlds.feast_twins import TYPES, Twin, ago, frame, row, schema, stamps, users

PROVIDER = "skewless_feast.provider.SkewlessProvider"
Open = Callable[[Twin], FeatureStore]
Columns = Callable[[], Sequence[bool]]


@pytest.fixture
def stores(make: Make, opened: Open) -> dict[str, FeatureStore]:
    """Our stores under Feast's provider and under ours, each a project of its own."""
    made = {}
    for provider in ("local", PROVIDER):
        twin = make("skewless", provider=provider, project=f"by_{provider.rpartition('.')[2].lower()}")
        twin.write("users.parquet", [row(1, ago(days=5))], schema())
        made[provider] = opened(twin)
        made[provider].apply([USER, users(twin.repo), lists(twin, [USER])])
    return made


@pytest.fixture
def as_columns(monkeypatch: pytest.MonkeyPatch) -> Columns:
    """Tell which pushes went as columns."""
    told: list[bool] = []
    write = SkewlessOnlineStore.write_table

    def watched(self: SkewlessOnlineStore, config: Any, table: FeatureView, rows: Any) -> bool:  # noqa: ANN401 - handed on
        told.append(write(self, config, table, rows))
        return told[-1]

    monkeypatch.setattr(SkewlessOnlineStore, "write_table", watched)
    return lambda: told


def answers(stores: dict[str, FeatureStore], features: list[str], *ids: int) -> list[dict[str, Any]]:
    """Return what each store answers."""
    return [
        store.get_online_features(features, users_of(*ids)).to_dict(include_event_timestamps=True)
        for store in stores.values()
    ]


def test_every_type_goes_as_columns_and_is_what_feast_makes_of_it(
    stores: dict[str, FeatureStore], as_columns: Columns
) -> None:
    rows = [
        row(u, ago(hours=u, microseconds=u), **FULL | {"a_double": u / 7, "a_text": None if u == 3 else "ß"})
        for u in range(5)
    ]
    for store in stores.values():
        store.push("users_push", frame(rows))
    by_feast, by_us = answers(stores, ALL, *range(6))
    assert by_us == by_feast
    exact = [stamps(store.get_online_features(ALL, users_of(*range(6)))) for store in stores.values()]
    assert exact[0] == exact[1]
    assert exact[0]["a_text"] == [to_us(item["event_time"]) for item in rows] + [0]
    assert as_columns() == [True]


def test_awaited_pushes_and_corrections(stores: dict[str, FeatureStore]) -> None:
    first, second = (row(1, ago(hours=5), ago(hours=age), **FULL | {"an_int32": age}) for age in (4, 3))
    for store in stores.values():
        for sent in (second, first):
            asyncio.run(store.push_async("users_push", frame([sent])))
    by_feast, by_us = answers(stores, ALL, 1)
    assert by_us == by_feast
    assert by_us["an_int32"] == [3]


def test_a_large_integer_beside_a_null_is_exact(stores: dict[str, FeatureStore]) -> None:
    rows = frame([row(user, ago(hours=1), **FULL) for user in (1, 2)])
    rows["an_int64"] = pd.array([2**53 + 1, None], dtype="Int64")
    for store in stores.values():
        store.push("users_push", rows)
    by_feast, by_us = answers(stores, ["users:an_int64"], 1, 2)
    assert (by_feast["an_int64"], by_us["an_int64"]) == ([2**53, None], [2**53 + 1, None])


@pytest.mark.parametrize("change", [{"an_int64": 3.0}, {"a_double": 7}, {"an_int32": None}, {"a_float": 0.1}])
def test_values_of_another_type_become_what_feast_makes_of_them(
    stores: dict[str, FeatureStore], change: dict[str, Any]
) -> None:
    for store in stores.values():
        store.push("users_push", frame([row(1, ago(hours=1), **FULL | change)]))
    by_feast, by_us = answers(stores, ALL, 1)
    assert by_us == by_feast


def test_values_that_columns_would_change_go_as_messages(stores: dict[str, FeatureStore], as_columns: Columns) -> None:
    assert set(TYPES) == set(FULL)
    seconds = row(1, ago(hours=1), **FULL | {"a_time": 86_400})
    for store in stores.values():
        store.push("users_push", frame([seconds]))
        store.write_to_online_store("lists", frame([row(1, ago(hours=1), weights=[0.5], words=["a"])]))
    by_feast, by_us = answers(stores, [*ALL, "lists:words"], 1)
    assert by_us == by_feast
    assert by_us["words"] == [["a"]]
    assert as_columns() == [False]  # lists are never columns


def test_a_row_without_a_key_or_time_is_refused(stores: dict[str, FeatureStore]) -> None:
    rows = frame([row(user, ago(hours=1), **FULL) for user in (1, 2)])
    rows["user_id"] = pd.array([1, None], dtype="Int64")
    for store in stores.values():
        with pytest.raises(SourceError, match=r"with a null key|without a key"):
            store.push("users_push", rows)
    assert [answer["a_double"] for answer in answers(stores, ALL, 1)] == [[None]] * 2
