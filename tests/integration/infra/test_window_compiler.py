"""From stream feature views to windowed views and event sources: what is compiled, refused, planned and registered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from skewless.commands.change_text import change_lines
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.hops import DAY, HOUR, MINUTE
from skewless.contract.windows.view import Aggregate, EventSource, Function, WindowView
from skewless.infra.definitions.compiler.compile import compile_repo
from skewless.infra.definitions.plans.planning import Planner
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from tests.docs.pages import blocks, page
from tests.worlds.edits import edit
from tests.worlds.plans import columns, refs
from tests.worlds.windowed import HEAD
from tests.worlds.windowed_types import AVERAGE, COLUMNS, KAFKA, PUSH, TTL, write_repo

HISTORY = {
    "carrier": pa.array(["AA"]),
    "flight": pa.array([7]),
    "arr_delay": pa.array([1.5]),
    "fuel": pa.array([2.5], pa.float32()),
    "gate": pa.array([3], pa.int32()),
    "plane": pa.array(["N1"]),
    "big": pa.array([True]),
    "due": pa.array([0], pa.timestamp("us", tz="UTC")),
    "ref": pa.array(["a"]),
    "landed_at": pa.array([0], pa.timestamp("us", tz="UTC")),
    "written": pa.array([0], pa.timestamp("us", tz="UTC")),
}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write_repo(tmp_path / "repo")


@pytest.fixture
def planner(repo: Path) -> Iterator[Planner]:
    with connect(repo / "spill", threads=1) as connection:
        yield Planner(repo=repo, state=ProjectState(repo / ".skewless"), connect=lambda: connection)


def compiled_view(repo: Path) -> WindowView:
    return compile_repo(repo).plan.window("carrier_now")


def compiled_source(repo: Path) -> EventSource:
    return compile_repo(repo).plan.source("landings")


def write_history(repo: Path, **changed: pa.Array | None) -> None:
    data = {name: column for name, column in {**HISTORY, **changed}.items() if column is not None}
    (repo / "data").mkdir()
    pq.write_table(pa.table(data), repo / "data" / "landings.parquet")


def test_3_2_a_stream_feature_view_compiles_to_this_windowed_view(repo: Path) -> None:
    view = compiled_view(repo)
    assert (view.name, view.source, view.event_column) == ("carrier_now", "landings", "landed_at")
    assert view.keys == columns({"carrier": DType.STRING})
    assert [(item.name, item.column, item.function, item.window_us, item.hop_us) for item in view.aggregates] == [
        ("avg_arr_delay_3600s", "arr_delay", Function.MEAN, HOUR, 5 * MINUTE),
        ("fuel_day", "fuel", Function.SUM, DAY, HOUR),
        ("stddev_fuel_1209600s", "fuel", Function.STD, 14 * DAY, DAY),
        ("nunique_plane_86400s", "plane", Function.COUNT_DISTINCT, DAY, 2 * HOUR),
        ("count_flight_3600s", "flight", Function.COUNT, HOUR, 5 * MINUTE),
        ("sum_late_3600s", "late", Function.SUM, HOUR, 5 * MINUTE),
        ("last_due_3600s", "due", Function.LAST, HOUR, 5 * MINUTE),
    ]
    assert [column.name for column in view.inputs] == ["flight", "arr_delay", "fuel", "gate", "plane", "big", "due"]
    assert view.scales == {"arr_delay": 3, "fuel": 2, "late": 0}
    assert (view.filter, view.sketch_size, view.ttl_us) == ("big", 256, 0)
    assert view.transform is not None
    assert (view.transform.function, view.transform.source) == ("lateness", (repo / "derive.py").read_text())
    assert view.transform.inputs == refs("event.arr_delay", "event.gate")
    assert view.transform.outputs == columns({"late": DType.BOOL, "loss": DType.FLOAT64})


def test_3_3_a_sequence_compiles_to_a_feature_for_each_place(repo: Path) -> None:
    edit(repo, AVERAGE, 'Aggregation(column="fuel", function="last_3", time_window=DAY, name="fuels"),')
    edit(repo, '"skewless.scale.arr_delay": "3",', "")
    view = compiled_view(repo)
    assert view.aggregates[:3] == tuple(
        Aggregate(name=f"fuels_{place}", column="fuel", function=Function.LAST, window_us=DAY, hop_us=HOUR, place=place)
        for place in (1, 2, 3)
    )
    plan = compile_repo(repo).plan
    assert FeaturePlan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_a_push_source_compiles_to_this_event_source(repo: Path) -> None:
    assert compile_repo(repo).plan.sources == (
        EventSource(
            name="landings",
            kind="push",
            event_column="landed_at",
            columns=columns(
                {
                    "carrier": DType.STRING,
                    "flight": DType.INT64,
                    "arr_delay": DType.FLOAT64,
                    "fuel": DType.FLOAT32,
                    "gate": DType.INT32,
                    "plane": DType.STRING,
                    "big": DType.BOOL,
                    "due": DType.TIMESTAMP,
                    "ref": DType.STRING,
                }
            ),
            id_column="ref",
            scales={"flight": 0, "arr_delay": 6, "fuel": 2, "gate": 0},
            history="data/landings.parquet",
            created_column="written",
            delay_us=5 * MINUTE,
            dedupe_us=DAY,
            earliest_us=0,
            latest_us=7_258_118_400_000_000,
        ),
    )


def test_a_topic_compiles_to_this_event_source(repo: Path) -> None:
    push = compiled_source(repo)
    edit(repo, PUSH, KAFKA % "a string")
    kafka = compiled_source(repo)
    assert (kafka.kind, kafka.topic, kafka.servers) == ("kafka", "air.landings", "broker:9092")
    assert (kafka.columns, kafka.event_column, kafka.scales) == (push.columns, push.event_column, push.scales)


def test_services_and_on_demand_views_take_windows_that_list_no_schema(repo: Path) -> None:
    plan = compile_repo(repo).plan
    names = [column.name for column in plan.window("carrier_now").features]
    labels = [f"carrier_now__{name}" for name in names]
    assert [ref.label for ref in plan.service("air").features] == [*labels, "hopes__hope"]
    assert [ref.label for ref in plan.transform("hopes").inputs] == [*labels, "request__hour"]
    assert {plan.dtype(ref) for ref in plan.service("air").features} == {DType.FLOAT64}


def test_a_service_may_choose_features_of_a_window(repo: Path) -> None:
    edit(repo, "features=[carrier_now, hopes]", 'features=[carrier_now[["sum_late_3600s", "fuel_day"]]]')
    plan = compile_repo(repo).plan
    assert plan.service("air").features == refs("carrier_now.sum_late_3600s", "carrier_now.fuel_day")
    assert plan.select_service("air").sources == plan.sources


def test_a_schema_may_list_the_features_in_any_order(repo: Path) -> None:
    first = compiled_view(repo)
    names = [column.name for column in first.features]
    fields = ", ".join(f'Field(name="{name}", dtype=Float32)' for name in reversed(names))
    edit(repo, TTL, f'entities=[carrier], schema=[Field(name="carrier", dtype=String), {fields}],')
    assert compiled_view(repo) == first


def test_6_1_the_plan_reads_back_as_it_was_and_keeps_its_hash_elsewhere(repo: Path) -> None:
    plan = compile_repo(repo).plan
    again = FeaturePlan.from_dict(json.loads(json.dumps(plan.as_dict())))
    assert again == plan
    assert (again.hash, again.windows[0].hash) == (plan.hash, plan.windows[0].hash)
    assert compile_repo(repo.rename(repo.with_name("moved"))).plan.hash == plan.hash


def test_where_events_come_from_is_no_part_of_the_state(repo: Path) -> None:
    first = compile_repo(repo).plan
    edit(repo, '"skewless.delay": "5m"', '"skewless.delay": "6m"')
    second = compile_repo(repo).plan
    assert second.hash != first.hash
    assert second.windows[0].hash == first.windows[0].hash


@pytest.mark.parametrize(
    ("old", "new", "hop_us"),
    [
        (AVERAGE, AVERAGE.replace("HOUR)", "HOUR, slide_interval=HOUR)"), 5 * MINUTE),
        (AVERAGE, AVERAGE.replace("HOUR)", "HOUR, slide_interval=timedelta(seconds=1))"), 1_000_000),
        (TTL, TTL + "enable_tiling=True,", 5 * MINUTE),
        (TTL, TTL + "enable_tiling=True, tiling_hop_size=timedelta(minutes=10),", 10 * MINUTE),
        (TTL, TTL + "tiling_hop_size=timedelta(minutes=10),", 5 * MINUTE),
    ],
)
def test_3_2_hops_are_given_by_the_aggregation_then_the_view_then_the_length(
    repo: Path, old: str, new: str, hop_us: int
) -> None:
    edit(repo, old, new)
    assert compiled_view(repo).aggregates[0].hop_us == hop_us


def test_the_columns_of_a_topic_may_stand_in_its_format(repo: Path) -> None:
    expected = compiled_source(repo).columns
    text = "carrier string, flight bigint, arr_delay double, fuel float, gate int, plane string, "
    edit(repo, f'"skewless.columns": {COLUMNS}', "")
    edit(repo, PUSH, KAFKA % (text + "big boolean, due timestamp, ref string"))
    assert compiled_source(repo).columns == expected


def test_the_columns_may_be_those_of_the_history(repo: Path) -> None:
    expected = compiled_source(repo).columns
    write_history(repo, blob=pa.array([b"x"]))
    edit(repo, f'"skewless.columns": {COLUMNS}', "")
    assert compiled_source(repo).columns == expected


def test_without_a_function_there_is_no_transform_and_nothing_else_is_read(repo: Path) -> None:
    edit(repo, 'udf=derive.lateness,\n    udf_string="",', "")
    edit(repo, 'Aggregation(column="late", function="sum", time_window=HOUR),', "")
    edit(repo, '"skewless.inputs": "gate, arr_delay",\n        "skewless.derived": "late boolean, loss double",', "")
    view = compiled_view(repo)
    assert view.transform is None
    assert "gate" not in {column.name for column in view.inputs}


def test_a_function_reads_every_column_where_it_does_not_say_which(repo: Path) -> None:
    edit(repo, '"skewless.inputs": "gate, arr_delay",', "")
    view = compiled_view(repo)
    assert view.transform is not None
    assert [ref.name for ref in view.transform.inputs] == [item.name for item in compiled_source(repo).readable]
    assert "carrier" not in {column.name for column in view.inputs}


def test_a_history_of_another_shape_is_refused(repo: Path, planner: Planner) -> None:
    write_history(repo, fuel=pa.array(["much"]))
    with pytest.raises(SourceError, match=r"history of event source 'landings' column 'fuel': does not fit .* float32"):
        planner.plan()


def test_a_history_that_lacks_a_column_is_refused(repo: Path, planner: Planner) -> None:
    write_history(repo, gate=None)
    with pytest.raises(SourceError, match=r"history of event source 'landings': has no such column .got 'gate'"):
        planner.plan()
    assert not planner.state.folder.exists()


def test_apply_registers_what_feast_reads_back_and_a_second_apply_changes_nothing(planner: Planner) -> None:
    write_history(planner.repo)
    report = planner.apply(1)
    assert [(item.action, item.kind, item.name) for item in report.changes] == [
        ("add", "windowed view", "carrier_now"),
        ("add", "event source", "landings"),
        ("add", "request field", "hour"),
        ("add", "transform", "hopes"),
        ("add", "service", "air"),
    ]
    assert [(item.view, item.kind, item.rows) for item in report.builds] == [("carrier_now", "states", 0)]
    assert planner.apply(2).changes == []
    store = FeatureStore(repo_path=str(planner.repo))
    (view,) = store.list_stream_feature_views()
    names = [column.name for column in compiled_view(planner.repo).features]
    # Feast keeps a set, and lists the keys of a stream feature view among its features.
    assert {field.name for field in view.features} == {*names, "carrier"}
    assert len(view.aggregations) == len(names)
    assert view.stream_source is not None
    assert view.stream_source.name == "landings"
    assert {source.name for source in store.list_data_sources()} >= {"landings", "data/landings.parquet"}
    (projection, _) = store.get_feature_service("air").feature_view_projections
    assert [field.name for field in projection.features] == names


def test_a_topic_is_registered_before_it_has_any_history(planner: Planner) -> None:
    edit(planner.repo, PUSH, KAFKA % "")
    planner.apply(1)
    assert planner.apply(2).changes == []
    (view,) = FeatureStore(repo_path=str(planner.repo)).list_stream_feature_views()
    assert type(view.stream_source).__name__ == "KafkaSource"


def test_a_changed_window_says_that_it_has_to_be_filled_again(planner: Planner) -> None:
    planner.apply(1)
    edit(planner.repo, 'name="fuel_day"', 'name="fuel_day", slide_interval=2 * HOUR')
    edit(planner.repo, '"5m"', '"6m"')
    report = planner.plan()
    assert [line for item in report.changes for line in change_lines(item)] == [
        "~ windowed view carrier_now",
        "    ~ fuel_day: hop 1 h -> 2 h",
        "~ event source landings",
        "    ~ delay 5 min -> 6 min",
    ]
    assert [(item.view, item.kind) for item in report.builds] == [("carrier_now", "states")]


def test_the_example_of_the_page_compiles(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "repo")
    definitions, function, sequences, recency, transform = blocks(page("windows.md"), "python")
    (repo / "events.py").write_text(function)
    (repo / "transforms.py").write_text(transform)
    last = 'Aggregation(column="landed_at", function="last", time_window=7 * DAY, name="last_landing_7d")'
    assert last in page("windows.md")
    (repo / "definitions.py").write_text(f"import transforms\n{HEAD}{definitions}{recency}")
    edit(repo, "    aggregations=[\n", f"    aggregations=[\n        {last},\n        *recent,\n")
    edit(repo, "carrier_now = windowed_view(", f"{sequences}\ncarrier_now = windowed_view(")
    plan = compile_repo(repo).plan
    assert [ref.label for ref in plan.transform("recency").inputs] == [
        "carrier_now__last_landing_7d",
        "prediction__asked_at",
    ]
    (view,) = plan.windows
    assert view.name == "carrier_now"
    assert {f"{name}_{place}" for name in ("delay", "landed") for place in range(1, 6)} <= {
        feature.name for feature in view.features
    }
    assert [source.name for source in plan.sources] == ["landings"]
