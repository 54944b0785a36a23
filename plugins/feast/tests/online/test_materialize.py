"""`feast materialize` through our engine: what Feast loses is there, and what Feast gets right is equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import BatchFeatureView, FeatureStore, FeatureView, Field, FileSource
from feast.infra.common.materialization_job import MaterializationTask
from feast.types import Float64, Int64, Json, Map

from plugins.feast.tests.online.conftest import Make
from plugins.feast.tests.online.test_reads import ALL, FULL, KINDS, pair_of_views
from skewless.contract.clock import to_us
from skewless.infra.reads.offline.changes import EventRange
from skewless_feast.engine import build_event_range
from tests.worlds.feast_repo import USER, users_of
from tests.worlds.feast_twins import NOW, TYPES, Kind, Twin, ago, frame, row, schema, source, users

Open = Callable[[Twin], FeatureStore]
NAMES = ("a_double", "an_int64")
# Feast's duckdb store calls what DuckDB 2 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
BOTH = pytest.mark.parametrize("kind", ["feast", "skewless"])


def applied(twin: Twin, store: FeatureStore, *rows: dict[str, Any], names: tuple[str, ...] = NAMES) -> FeatureStore:
    """Publish rows and apply the view of users."""
    twin.write("users.parquet", list(rows), schema(names))
    store.apply([USER, users(twin.repo, names=names)])
    return store


def doubles(store: FeatureStore, *ids: int) -> list[Any]:
    """Return the double of each user."""
    values: list[Any] = store.get_online_features(["users:a_double"], users_of(*ids)).to_dict()["a_double"]
    return values


def test_a_whole_history_is_materialised_as_by_feast(make: Make, opened: Open) -> None:
    rows = [row(u, ago(hours=h, minutes=u), **FULL | {"a_double": u + h / 100}) for u in range(9) for h in range(1, 9)]
    answers = {}
    for kind in KINDS:
        twin = make(kind)
        store = applied(twin, opened(twin), *rows, names=tuple(TYPES))
        store.materialize(ago(days=1), NOW)
        answers[kind] = store.get_online_features(ALL, users_of(*range(10))).to_dict()
    assert answers["skewless"] == answers["feast"]
    assert answers["skewless"]["a_double"] == [u + 0.01 for u in range(9)] + [None]


@BOTH
def test_late_rows_come_with_the_next_increment(make: Make, opened: Open, kind: Kind) -> None:
    twin = make(kind)
    early, late = row(1, ago(hours=5), a_double=1.0), row(2, ago(hours=6), ago(seconds=1), a_double=2.0)
    store = applied(twin, opened(twin), early)
    store.materialize_incremental(ago(hours=1))
    twin.write("users.parquet", [early, late], schema(NAMES))
    store.materialize_incremental(NOW)
    assert doubles(store, 1, 2) == [1.0, 2.0 if kind == "skewless" else None]


@BOTH
def test_large_integers_beside_null_are_exact(make: Make, opened: Open, kind: Kind) -> None:
    twin = make(kind)
    store = applied(twin, opened(twin), row(1, ago(hours=1), an_int64=2**53 + 1), row(2, ago(hours=1)))
    store.materialize(ago(days=1), NOW)
    answer = store.get_online_features(["users:an_int64"], users_of(1, 2)).to_dict()["an_int64"]
    assert answer == [2**53 + 1 if kind == "skewless" else 2**53, None]


def test_a_view_of_two_entities_is_read_from_any_folder(
    make: Make, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    answers = {}
    for kind in KINDS:
        twin = make(kind)
        columns = schema(NAMES).append(pa.field("shop_code", pa.string()))
        twin.write("users.parquet", [row(2, ago(hours=1), shop_code="a|b}", a_double=4.0)], columns)
        store = opened(twin)
        store.apply(pair_of_views(twin))
        store.materialize(ago(days=1), NOW, ["visits"])
        asked = [{"user_id": 2, "shop_code": code} for code in ("a|b}", "x")]
        answers[kind] = twin.store().get_online_features(["visits:a_double"], asked).to_dict()["a_double"]
    assert answers == {kind: [4.0, None] for kind in KINDS}
    assert list(elsewhere.iterdir()) == []


@BOTH
def test_a_correction_in_the_source_is_materialised(make: Make, opened: Open, kind: Kind) -> None:
    twin = make(kind)
    first, second = (row(1, ago(hours=5), ago(hours=age), a_double=float(age)) for age in (4, 3))
    store = applied(twin, opened(twin), first)
    store.materialize(ago(days=1), NOW)
    twin.write("users.parquet", [first, second], schema(NAMES))
    store.materialize(ago(days=1), NOW)
    assert doubles(store, 1) == [3.0 if kind == "skewless" else 4.0]


@BOTH
def test_a_range_materialises_only_its_events(make: Make, opened: Open, kind: Kind) -> None:
    twin = make(kind)
    rows = [row(user, ago(hours=user), a_double=float(user)) for user in (1, 3, 5)]
    store = applied(twin, opened(twin), *rows)
    store.materialize(ago(hours=4), ago(hours=2))
    assert doubles(store, 1, 3, 5) == [None, 3.0, None]
    store.materialize(ago(hours=6), ago(hours=2))
    assert doubles(store, 1, 3, 5) == [None, 3.0, 5.0]
    store.materialize_incremental(NOW)
    assert doubles(store, 1, 3, 5) == [1.0, 3.0, 5.0]


@BOTH
def test_a_push_and_a_materialisation_meet(make: Make, opened: Open, kind: Kind) -> None:
    twin = make(kind)
    store = applied(twin, opened(twin), *[row(user, ago(hours=2), a_double=float(user)) for user in (1, 2)])
    store.push(
        "users_push",
        frame([row(1, ago(hours=1), a_double=10.0, an_int64=0), row(2, ago(hours=3), a_double=20.0, an_int64=0)]),
    )
    store.materialize(ago(days=1), NOW)
    assert doubles(store, 1, 2) == [10.0, 2.0]


def of_feasts_types(twin: Twin) -> FeatureView:
    """Return a view that our plan has no types for."""
    schema_ = [Field(name="user_id", dtype=Int64), Field(name="profile", dtype=Map), Field(name="big", dtype=Int64)]
    return FeatureView(
        name="profiles", entities=[USER], ttl=timedelta(days=9), source=source(twin.repo), schema=schema_
    )


@BOTH
def test_types_of_feasts_own_are_materialised(make: Make, opened: Open, kind: Kind) -> None:
    twin = make(kind)
    columns = [("profile", pa.struct([("level", pa.string())])), ("big", pa.int64())]
    both = pa.schema([*schema(()), *columns])
    rows = [row(user, ago(hours=1), profile={"level": str(user)}, big=2**53 + 1) for user in (1, 2)]
    twin.write("users.parquet", [*rows, row(3, ago(hours=1))], both)
    store = opened(twin)
    store.apply([USER, of_feasts_types(twin)])
    store.materialize_incremental(NOW)
    answer = store.get_online_features(["profiles:profile", "profiles:big"], users_of(1, 2, 3)).to_dict()
    assert answer["profile"] == [{"level": "1"}, {"level": "2"}, None]
    assert answer["big"] == [2**53 + (kind == "skewless")] * 2 + [None]


@BOTH
def test_a_path_may_be_an_address_of_a_file(make: Make, opened: Open, kind: Kind) -> None:
    twin = make(kind)
    twin.write("users.parquet", [row(1, ago(hours=1), a_double=1.0)], schema(NAMES))
    place = FileSource(path=f"file://{twin.repo}/users.parquet", timestamp_field="event_time")
    fields = [Field(name="user_id", dtype=Int64), Field(name="a_double", dtype=Float64)]
    store = opened(twin)
    store.apply([USER, FeatureView(name="users", entities=[USER], source=place, schema=fields)])
    store.materialize(ago(days=1), NOW)
    assert doubles(store, 1) == [1.0]


@pytest.mark.parametrize("exact", [True, False])
def test_a_bar_shows_every_row(make: Make, opened: Open, monkeypatch: pytest.MonkeyPatch, *, exact: bool) -> None:
    twin = make("skewless")
    columns = [("profile", pa.struct([("level", pa.string())])), ("big", pa.int64())]
    rows = [row(user, ago(hours=1), profile={"level": "1"}, big=user, a_double=1.0) for user in range(7)]
    twin.write("users.parquet", rows, pa.schema([*schema(NAMES), *columns]))
    store = opened(twin)
    store.apply([USER, users(twin.repo, names=NAMES) if exact else of_feasts_types(twin)])
    bars: list[ToldBar] = []

    def bar(total: int, **_: Any) -> ToldBar:  # noqa: ANN401 - how wide it would be
        bars.append(ToldBar(total=total))
        return bars[-1]

    monkeypatch.setattr("feast.feature_store.tqdm", bar)
    store.materialize_incremental(NOW)
    assert bars == [ToldBar(total=7, done=7, closed=True)]


@dataclass
class ToldBar:
    """What Feast's bar was told."""

    total: int
    done: int = 0
    closed: bool = False

    def update(self, n: int) -> None:
        """Go on by n rows."""
        self.done += n

    def close(self) -> None:
        """End."""
        self.closed = True


@pytest.mark.filterwarnings("ignore:Batch feature views are experimental:RuntimeWarning")
@BOTH
def test_computed_views_are_materialised(make: Make, opened: Open, kind: Kind) -> None:
    # Feast keeps the text of the function, where the names of types mean nothing.
    def doubled(rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return rows.assign(a_double=rows["a_double"] * 2)

    offline = {"feast": "file", "skewless": "skewless_feast.offline_store.SkewlessOfflineStore"}[kind]
    twin = make(kind, offline_store={"type": offline})
    twin.write("users.parquet", [row(user, ago(hours=1), a_double=user / 2) for user in (1, 2)], schema(("a_double",)))
    store = opened(twin)
    view = BatchFeatureView(
        name="doubled",
        entities=[USER],
        ttl=timedelta(days=9),
        source=source(twin.repo),
        mode="pandas",
        udf=doubled,
        online=True,
        schema=[Field(name="user_id", dtype=Int64), Field(name="a_double", dtype=Float64)],
    )
    store.apply([USER, view])
    store.materialize(ago(days=1), NOW)
    answer = store.get_online_features(["doubled:a_double"], users_of(1, 2, 3)).to_dict()
    assert answer["a_double"] == [1.0, 2.0, None]


def test_validation_refuses_what_is_no_json(make: Make, opened: Open) -> None:
    twin = make("skewless")
    rows = [row(user, ago(hours=1), settings=text) for user, text in ((1, "{}"), (2, "no json"))]
    twin.write("users.parquet", rows, pa.schema([*schema(()), ("settings", pa.string())]))
    fields = [Field(name="user_id", dtype=Int64), Field(name="settings", dtype=Json)]
    view = FeatureView(name="checked", entities=[USER], source=source(twin.repo), schema=fields, enable_validation=True)
    store = opened(twin)
    store.apply([USER, view])
    with pytest.raises(ValueError, match="invalid JSON"):
        store.materialize(ago(days=1), NOW)
    assert store.get_online_features(["checked:settings"], users_of(1)).to_dict()["settings"] == [None]


def test_what_an_increment_is() -> None:
    view = FeatureView(name="v", entities=[USER], ttl=timedelta(days=2))

    def task(start: datetime, end: datetime = NOW) -> MaterializationTask:
        return MaterializationTask(project="p", feature_view=view, start_time=start, end_time=end)

    assert build_event_range(task(ago(days=2, seconds=3)), NOW) is None
    assert build_event_range(task(ago(days=2), ago(hours=1)), NOW) == EventRange(end_us=to_us(ago(hours=1)))
    assert build_event_range(task(ago(days=1)), NOW) == EventRange(start_us=to_us(ago(days=1)), end_us=to_us(NOW))
    view.materialization_intervals.append((ago(days=2), ago(hours=5)))
    assert build_event_range(task(ago(hours=5)), NOW) is None
    assert build_event_range(task(ago(days=2)), NOW) == EventRange(start_us=to_us(ago(days=2)), end_us=to_us(NOW))


def test_a_broken_source_fails_by_name_and_serves_what_there_is(make: Make, opened: Open) -> None:
    twin = make("skewless")
    store = applied(twin, opened(twin), row(1, ago(hours=1), a_double=1.0))
    store.materialize_incremental(NOW)
    (twin.repo / "users.parquet").write_bytes(b"no parquet")
    with pytest.raises(Exception, match="cannot be read") as caught:
        store.materialize_incremental(NOW)
    assert type(caught.value).__name__ == "SourceError"
    assert doubles(store, 1) == [1.0]
