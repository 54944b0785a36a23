"""Packed rows and Feast's messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from feast import FeatureView, Field, FileSource
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import DoubleList, Value
from feast.repo_config import RepoConfig
from feast.types import Array, Float64, Int64
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.clock import ManualClock, to_us
from skewless.contract.errors import RequestError, SkewlessError, SourceError
from skewless_feast.online_results import build_view_request
from skewless_feast.rows import Positions, Row, pack_rows
from skewless_feast.stored_views import OPAQUE, StoredView, build_stored_view
from skewless_feast.values import unpack_values
from tests.worlds.feast_repo import USER
from tests.worlds.feast_twins import TYPES

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int32_val": st.integers(-(2**31), 2**31 - 1),
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "double_val": st.floats(),
    "float_val": st.floats(width=32),
    "bool_val": st.booleans(),
    "string_val": st.text(max_size=300),
    "bytes_val": st.binary(max_size=300),
}
CONFIG = RepoConfig(project="p", registry="r.db", provider="local", entity_key_serialization_version=3)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def form(**types: Any) -> StoredView:  # noqa: ANN401 - Feast's types
    """Return the stored form of a view of users."""
    view = FeatureView(
        name="v",
        entities=[USER],
        ttl=timedelta(days=1),
        source=FileSource(path="v.parquet", timestamp_field="t"),
        schema=[Field(name="user_id", dtype=Int64), *(Field(name=name, dtype=kind) for name, kind in types.items())],
    )
    return build_stored_view(view, CONFIG, dict)


def sent(user: Value, event: datetime | None, **values: Value) -> Row:
    """Return a row as Feast writes it."""
    return EntityKey(join_keys=["user_id"], entity_values=[user]), values, event, None  # type: ignore[return-value]  # Feast sends None too


@given(st.lists(st.tuples(*(VALUES[kind] for kind in VALUES)), min_size=1, max_size=5), st.data())
def test_what_is_packed_is_unpacked_bit_for_bit(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    types = {kind: next(t for n, (t, _) in TYPES.items() if KIND_OF[n] == kind) for kind in VALUES}
    stored = form(**types)
    shown = [data.draw(st.lists(st.booleans(), min_size=len(VALUES), max_size=len(VALUES))) for _ in rows]
    messages = [
        {kind: Value(**{kind: value}) if ok else Value() for kind, value, ok in zip(VALUES, row, show, strict=True)}
        for row, show in zip(rows, shown, strict=True)
    ]
    data_ = [sent(Value(int64_val=i), NOON, **values) for i, values in enumerate(messages)]
    packed = pack_rows(stored, "p", data_, Positions(ManualClock(to_us(NOON))).reserve(len(rows)))
    read = stored.codec.decode(packed.rows.to_pylist())
    for kind in VALUES:
        values = unpack_values(kind, read.values[kind], (~read.nulls[kind]).tolist())
        assert [v.SerializeToString() for v in values] == [m[kind].SerializeToString() for m in messages]


KIND_OF = {
    "a_double": "double_val",
    "a_float": "float_val",
    "an_int64": "int64_val",
    "an_int32": "int32_val",
    "a_bool": "bool_val",
    "a_text": "string_val",
    "some_bytes": "bytes_val",
    "a_time": "unix_timestamp_val",
}


def test_a_list_is_kept_as_its_message() -> None:
    stored = form(weights=Array(Float64))
    message = Value(double_list_val=DoubleList(val=[0.1, -0.0, float("inf")]))
    assert (stored.kinds, stored.exact) == ({"weights": OPAQUE}, False)
    packed = pack_rows(stored, "p", [sent(Value(int64_val=1), NOON, weights=message)], np.array([2**50]))
    assert Value.FromString(stored.codec.decode(packed.rows.to_pylist()).values["weights"][0]) == message


@pytest.mark.parametrize(
    ("row", "error", "problem"),
    [
        (sent(Value(), NOON, x=Value(double_val=1)), SourceError, "with a null key"),
        (sent(Value(int64_val=1), None, x=Value(double_val=1)), SourceError, "without an event time"),
        (sent(Value(int64_val=1), NOON, x=Value(string_val="1")), SourceError, "declared as float64"),
        (sent(Value(double_val=1.0), NOON, x=Value(double_val=1)), RequestError, "is not an integer"),
    ],
)
def test_a_row_that_nobody_could_read_is_refused(row: Row, error: type[SkewlessError], problem: str) -> None:
    good = sent(Value(int64_val=7), NOON, x=Value(double_val=0.5))
    with pytest.raises(error, match=problem):
        pack_rows(form(x=Float64), "p", [good, row], np.arange(2) + 2**50)


def test_features_come_in_the_order_of_the_schema() -> None:
    names = [f"f{i}" for i in range(6)]
    view = FeatureView(name="v", entities=[], schema=[Field(name=name, dtype=Float64) for name in names])
    stored = build_stored_view(view, CONFIG, dict)
    keys = {"__dummy_id": [Value(string_val="")]}
    for wanted in (names[::-1], names[3:] + names[:3], names[1:2]):
        assert list(build_view_request(stored, view, wanted, "p", keys).features) == sorted(wanted)


def test_positions_grow_even_when_the_clock_does_not() -> None:
    clock = ManualClock(5)
    positions = Positions(clock)
    first, second = positions.reserve(2).tolist(), positions.reserve(1).tolist()
    clock.set(2**51)
    assert [*first, *second, *positions.reserve(1).tolist()] == [2**50, 2**50 + 1, 2**50 + 2, 2**51]
