"""Any Feast type, any null pattern, any key: the join against a search by hand, and against Feast's DuckDB store."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from feast import Entity, FeatureStore, FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore
from feast.types import (
    Array,
    Bool,
    Bytes,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Map,
    String,
    Struct,
    UnixTimestamp,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless_feast.offline_store import SkewlessOfflineStore
from tests.worlds.feast_offline import OfflineWorld
from tests.worlds.feast_repo import UTC_US

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

SECOND = 1_000_000
EPOCH = 1_704_067_200 * SECOND


@dataclass(frozen=True)
class Kind:
    """A Feast type, its Arrow type and its values."""

    feast: FeastType
    arrow: pa.DataType
    values: st.SearchStrategy[Any]


def bits64(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


FLOATS = st.one_of(st.floats(), st.sampled_from([bits64(1 << 63), bits64(0x7FF8000000000ABC), bits64(1)]))
SINGLES = st.floats(width=32)
INT64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53 + 1, -(2**63), 2**63 - 1, 0]))
INT32 = st.integers(-(2**31), 2**31 - 1)
TIMES = st.integers(-62_135_596_800 * SECOND, 253_402_300_799 * SECOND)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
BYTES = st.binary(max_size=5)
KEYS: dict[str, Kind] = {
    "int32": Kind(Int32, pa.int32(), st.sampled_from([0, -1, 2**31 - 1])),
    "int64": Kind(Int64, pa.int64(), st.sampled_from([2**53, 2**53 + 1, -(2**63)])),
    "text": Kind(String, pa.string(), st.sampled_from(["", "1", "é", "e\u0301", "'\"|{}"])),
    "bytes": Kind(Bytes, pa.binary(), st.sampled_from([b"", b"\x00", b"\xff'"])),
    "bool": Kind(Bool, pa.bool_(), st.booleans()),
    "time": Kind(UnixTimestamp, UTC_US, st.sampled_from([-1, 0, EPOCH])),
}
FEATURES: dict[str, Kind] = {
    "float64": Kind(Float64, pa.float64(), FLOATS),
    "float32": Kind(Float32, pa.float32(), SINGLES),
    "int64": Kind(Int64, pa.int64(), INT64),
    "int32": Kind(Int32, pa.int32(), INT32),
    "bool": Kind(Bool, pa.bool_(), st.booleans()),
    "text": Kind(String, pa.string(), TEXT),
    "bytes": Kind(Bytes, pa.binary(), BYTES),
    "time": Kind(UnixTimestamp, UTC_US, TIMES),
    "floats": Kind(Array(Float64), pa.list_(pa.float64()), st.lists(st.none() | FLOATS, max_size=3)),
    "integers": Kind(Array(Int64), pa.list_(pa.int64()), st.lists(INT64, max_size=3)),
    "texts": Kind(Array(String), pa.list_(pa.string()), st.lists(TEXT, max_size=3)),
    "nested": Kind(
        Array(Array(Int64)), pa.list_(pa.list_(pa.int64())), st.lists(st.lists(INT64, max_size=2), max_size=2)
    ),
    "map": Kind(
        Map, pa.map_(pa.string(), pa.string()), st.dictionaries(TEXT, TEXT, max_size=2).map(lambda d: [*d.items()])
    ),
    "struct": Kind(
        Struct({"a": Int64, "b": String}),
        pa.struct([("a", pa.int64()), ("b", pa.string())]),
        st.fixed_dictionaries({"a": st.none() | INT64, "b": TEXT}),
    ),
}
NAMES = ("x", "order_y", "select", 'quo"te', "rn", "Mixed Case", "日本", "a.b", "it's", "__id2", "percent%s")


@dataclass(frozen=True)
class Example:
    """A view's source and what is asked of it; times are microseconds."""

    keys: dict[str, Kind]
    features: dict[str, Kind]
    rows: list[tuple[tuple[Any, ...], int | None, int | None, tuple[Any, ...]]]
    asked: list[tuple[tuple[Any, ...], int | None]]
    ttl_us: int
    created: bool
    chunks: int


@st.composite
def examples(draw: st.DrawFn, keys: Sequence[str] = tuple(KEYS), features: Sequence[str] = tuple(FEATURES)) -> Example:
    kinds = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2))
    key_kinds = {f"key {i}": KEYS[name] for i, name in enumerate(kinds)}
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    chosen = {name: FEATURES[draw(st.sampled_from(features))] for name in names}
    pools = [draw(st.lists(kind.values, min_size=1, max_size=5)) for kind in chosen.values()]
    few = [draw(st.tuples(*(kind.values for kind in key_kinds.values()))) for _ in range(2)]
    few.append((None, *few[0][1:]))
    # Chance, not Hypothesis, picks among them: equal keys, equal times and corrections are to be the rule.
    chance = Random(draw(st.integers(0, 2**32)))
    seconds = [None, *range(5)]
    rows = [
        (chance.choice(few), _moment(chance.choice(seconds)), _moment(chance.choice(seconds)), _picked(chance, pools))
        for _ in range(chance.randrange(4, 24))
    ]
    asked = [
        (chance.choice(few), _moment(chance.choice([*seconds, 5, 6, 7]), chance.choice([0, 0, 1, -1])))
        for _ in range(chance.randrange(16))
    ]
    return Example(
        keys=key_kinds,
        features=chosen,
        rows=rows,
        asked=asked,
        ttl_us=draw(st.sampled_from([0, 2 * SECOND, 1])),
        created=draw(st.booleans()),
        chunks=draw(st.integers(1, 3)),
    )


def _moment(second: int | None, more_us: int = 0) -> int | None:
    return None if second is None else EPOCH + second * SECOND + more_us


def _picked(chance: Random, pools: Sequence[list[Any]]) -> tuple[Any, ...]:
    return tuple(chance.choice([None, *pool]) for pool in pools)


def table(
    names: Sequence[str], kinds: Sequence[pa.DataType], rows: Sequence[Sequence[Any]], chunks: int = 1
) -> pa.Table:
    """Return rows as an Arrow table of several chunks."""
    size = max(1, -(-len(rows) // chunks))
    pieces = [rows[start : start + size] for start in range(0, max(len(rows), 1), size)]
    columns = [
        pa.chunked_array([_array([row[i] for row in piece], kind) for piece in pieces], kind)
        for i, kind in enumerate(kinds)
    ]
    return pa.table(columns, names=list(names))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int64()).cast(kind) if kind == UTC_US else pa.array(values, kind)


def sources(example: Example) -> pa.Table:
    names = [*example.keys, "event", "created", *example.features]
    kinds = (
        [kind.arrow for kind in example.keys.values()],
        [UTC_US, UTC_US],
        [kind.arrow for kind in example.features.values()],
    )
    rows = [(*key, event, created, *values) for key, event, created, values in example.rows]
    return table(names, [kind for group in kinds for kind in group], rows)


def entities(example: Example) -> pa.Table:
    kinds = [*(kind.arrow for kind in example.keys.values()), UTC_US, pa.int64()]
    rows = [(*key, moment, i) for i, (key, moment) in enumerate(example.asked)]
    return table([*example.keys, "event_timestamp", "n"], kinds, rows, example.chunks)


def winner(example: Example, key: tuple[Any, ...], moment: int | None) -> int | None:
    """Return the row that an entity row finds, by looking at each (SEMANTICS 2.1, 2.2)."""
    if moment is None or None in key:
        return None
    fitting = [
        (event, created if example.created and created is not None else -(2**63), i)
        for i, (row_key, event, created, _) in enumerate(example.rows)
        if row_key == key and event is not None and event <= moment
    ]
    best = max(fitting, default=None)
    if best is None or (example.ttl_us and moment - best[0] > example.ttl_us):
        return None
    return best[2]


def plain(value: Any) -> Any:  # noqa: ANN401 - any value
    """Return a value in which floats are their bits, and lists are compared in depth."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {name: plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def same_columns(found: pa.ChunkedArray, expected: pa.ChunkedArray) -> bool:
    """Say whether two columns are equal to the last bit."""
    if expected.type in {pa.float32(), pa.float64()}:
        kind = np.uint32 if expected.type == pa.float32() else np.uint64
        nulls = [np.asarray(column.is_null()) for column in (found, expected)]
        bits = [column.fill_null(0.0).to_numpy().view(kind).tolist() for column in (found, expected)]
        return bool(found.type == expected.type) and nulls[0].tolist() == nulls[1].tolist() and bits[0] == bits[1]
    if expected.type == pa.list_(pa.float64()):  # a null inside a list of floats is NaN on both sides
        served = [value and [math.nan if item is None else item for item in value] for value in expected.to_pylist()]
        return bool(plain(found.to_pylist()) == plain(served))
    # Times before year 1 or after 9999 are no datetime: compare them as integers.
    if expected.type == UTC_US:
        found, expected = found.cast(pa.int64()), expected.cast(pa.int64())
    return bool(plain(found.to_pylist()) == plain(expected.to_pylist()))


@pytest.fixture(scope="module")
def offline_world(tmp_path_factory: pytest.TempPathFactory) -> OfflineWorld:
    world = OfflineWorld(tmp_path_factory.mktemp("offline"))
    world.stores["skewless"] = world.open("skewless")
    return world


def feature_view(world: OfflineWorld, example: Example, path: str) -> FeatureView:
    return world.view(
        features={name: item.feast for name, item in example.features.items()},
        entities=[
            Entity(name=name, join_keys=[name], value_type=item.feast.to_value_type())
            for name, item in example.keys.items()
        ],
        keys={name: item.feast for name, item in example.keys.items()},
        source=world.source(path, **({"created_timestamp_column": "created"} if example.created else {})),
        ttl=timedelta(microseconds=example.ttl_us),
    )


def ours(store: FeatureStore, view: FeatureView, asked: pa.Table) -> pa.Table:
    refs = [f"{view.name}:{field.name}" for field in view.features]
    return SkewlessOfflineStore.get_historical_features(
        store.config, [view], refs, asked, store.registry, "p"
    ).to_arrow()


@given(example=examples())
def test_2_1_the_join_finds_what_a_search_by_hand_finds(offline_world: OfflineWorld, example: Example) -> None:
    world, feast = offline_world, offline_world.stores["skewless"]
    rows = sources(example)
    path = world.write(f"{uuid4().hex}.parquet", rows)
    found = ours(feast, feature_view(world, example, path.name), entities(example))
    path.unlink()
    at = pa.array([winner(example, key, moment) for key, moment in example.asked], pa.int64())
    assert found.column_names == [*example.keys, "event_timestamp", "n", *example.features]
    assert found["n"].to_pylist() == list(range(len(example.asked)))
    for name in example.features:
        assert same_columns(found[name], rows[name].take(at)), name


@settings(max_examples=8)
@given(example=examples(keys=("int64", "text"), features=("float64", "int64", "text", "bool", "floats")))
def test_feasts_duckdb_store_finds_the_same_where_it_is_right(offline_world: OfflineWorld, example: Example) -> None:
    world, feast = offline_world, offline_world.stores["skewless"]
    # Without two rows of one rank, names that Feast uses itself, and times it cannot ask by.
    kept = list({(row[0], row[1], example.created and row[2]): row for row in example.rows if row[1]}.values())
    plain_names = {f"f{i}": kind for i, kind in enumerate(example.features.values())}
    asked = [item for item in example.asked if item[1] and None not in item[0]]
    example = replace(example, rows=kept, asked=asked, features=plain_names)
    path = world.write(f"{uuid4().hex}.parquet", sources(example))
    view, rows = feature_view(world, example, path.name), entities(example)
    refs = [f"v:{name}" for name in plain_names]
    theirs = DuckDBOfflineStore.get_historical_features(
        world.open("feast").config, [view], refs, rows.to_pandas(), feast.registry, "p"
    ).to_arrow()
    found = ours(feast, view, rows)
    path.unlink()
    for name in plain_names:
        assert same_columns(found[name], theirs.sort_by("n")[name]), name
