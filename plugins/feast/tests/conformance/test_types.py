"""The types of both reads, for each declared type and each type of a source, beside those of Feast's own stores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, FeastType, Float32, Float64, Int32, Int64, UnixTimestamp

from plugins.feast.tests.conformance.value_types import VALUE_TYPES
from tests.servers.node import Node
from tests.worlds.feast_conformance import ConformanceProject, ago, asked, plain_name, table_of
from tests.worlds.feast_repo import USER, tear_down, users_of

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.* is an experimental feature:RuntimeWarning"
)
NUMBERS = (pa.int8, pa.int16, pa.int32, pa.int64, pa.uint8, pa.uint32, pa.uint64, pa.float32, pa.float64, pa.bool_)
CASES: dict[str, tuple[FeastType, pa.Array]] = {
    **{plain_name(name): (kind.feast, pa.array(kind.values, kind.arrow)) for name, kind in VALUE_TYPES.items()},
    **{
        f"{dtype}_of_{kind()}".lower(): (dtype, pa.array([1, 0]).cast(kind()))
        for dtype in (Int32, Int64, Float32, Float64)
        for kind in NUMBERS
        if (dtype, kind) != (Float64, pa.bool_)
    },
    **{f"list_{name}": (Array(Float32), pa.array([[0.1, *more], []])) for name, more in {"a": [], "n": [None]}.items()},
    "naive": (UnixTimestamp, pa.array([1, 2], pa.timestamp("us"))),
}
INTEGERS = {kind() for kind in NUMBERS if pa.types.is_integer(kind())}
# Not each integer is a float32 or a float64, so these are the float of the online read, as a double.
DECLARED = {name for name, (dtype, values) in CASES.items() if dtype in {Float32, Float64} and values.type in INTEGERS}
# Feast's own materialization rejects them, before it calls a store.
NEVER_MATERIALIZED = {"zonedtimestamp", "map", "scalarmap", "array_map_", "float64_of_float"} | {
    f"float64_of_{kind}" for kind in INTEGERS - {pa.int64()}
}
FEAST = {
    "offline_store": {"type": "duckdb"},
    "online_store": {"type": "sqlite", "path": "online.db"},
    "batch_engine": {"type": "local"},
}


def doubled() -> Any:  # noqa: ANN401 - a function, whose text Feast keeps
    def double_of(inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        import pandas as pd  # noqa: PLC0415 - as above

        return pd.DataFrame({"double": inputs["x"] * 2})

    return double_of


@pytest.fixture(scope="module")
def typed_stores(tmp_path_factory: pytest.TempPathFactory, valkey: Node) -> Iterator[list[ConformanceProject]]:
    """The same definitions and sources on our stores and on Feast's, materialized in each."""
    projects = []
    for more in ({}, FEAST):
        project = ConformanceProject(tmp_path_factory.mktemp("typed"), valkey.port, "local", **more)
        views = {}
        for name, (dtype, values) in CASES.items():
            project.write(f"v_{name}.parquet", table_of([1, 2], x=values))
            views[name] = project.view(f"v_{name}", {"x": dtype})
        computed = on_demand_feature_view(
            name="computed",
            entities=[USER],
            sources=[views["float32_of_double"]],
            schema=[Field(name="double", dtype=Float64)],
            write_to_online_store=True,
        )
        project.apply(*views.values(), computed(doubled()))
        names = [f"v_{name}" for name in CASES if name not in NEVER_MATERIALIZED]
        project.store.materialize(ago(days=1), ago(), [*names, "computed"])
        projects.append(project)
    yield projects
    for project in projects:
        tear_down(project.store)


@pytest.mark.parametrize("name", CASES)
def test_a_history_has_the_types_of_feast(typed_stores: list[ConformanceProject], name: str) -> None:
    ours, feast = (project.offline([f"v_{name}:x"], asked(2, 9, 1)).sort_by("user_id") for project in typed_stores)
    assert ours["x"].type == (pa.float64() if name in DECLARED else feast["x"].type)
    assert ours["x"].is_null().to_pylist() == feast["x"].is_null().to_pylist() == [False, False, True]


@pytest.mark.parametrize("name", sorted(CASES.keys() - NEVER_MATERIALIZED))
def test_an_online_read_has_the_types_of_feast(typed_stores: list[ConformanceProject], name: str) -> None:
    answers = [project.store.get_online_features([f"v_{name}:x"], users_of(1, 2, 9)) for project in typed_stores]
    ours, feast = ([type(value) for value in answer.to_dict()["x"]] for answer in answers)
    assert ours == feast
    dtypes = [str(answer.to_df()["x"].dtype) for answer in answers]
    assert dtypes[0] == dtypes[1]


@pytest.mark.parametrize("name", sorted(NEVER_MATERIALIZED))
def test_the_stores_of_feast_reject_the_other_types(typed_stores: list[ConformanceProject], name: str) -> None:
    with pytest.raises((TypeError, AssertionError, pa.ArrowInvalid)):
        typed_stores[1].store.materialize(ago(days=1), ago(), [f"v_{name}"])


def test_a_history_has_the_value_of_the_online_read(typed_stores: list[ConformanceProject]) -> None:
    for name in ("float32_of_double", "list_a", "list_n"):
        (offline,) = typed_stores[0].offline([f"v_{name}:x"], asked(1))["x"].to_pylist()
        assert str(offline) == str(typed_stores[0].online([f"v_{name}:x"], users_of(1))["x"][0])


def test_an_on_demand_view_is_materialized_from_float32(typed_stores: list[ConformanceProject]) -> None:
    ours, feast = (project.online(["computed:double"], users_of(1, 2))["double"] for project in typed_stores)
    assert ours == pytest.approx(feast, rel=1e-6)
    assert ours == [2.0, 0.0]
