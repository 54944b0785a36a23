"""Stream feature views and streams that cannot be computed exactly, or contradict themselves: each is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.contract.errors import DefinitionError
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.compiler.compile import compile_repo
from tests.worlds.edits import edit
from tests.worlds.windowed_types import AVERAGE, COLUMNS, KAFKA, PUSH, TTL, write_repo

LANDED = 'source=landings,\n    timestamp_field="landed_at",'
WHERE = '"skewless.where": "big",'


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write_repo(tmp_path / "repo")


def compiled_view(repo: Path) -> WindowView:
    return compile_repo(repo).plan.window("carrier_now")


SOURCE_REFUSALS = [
    ("big boolean", "big boolen", "event source 'landings' column 'big': has a type that .*got 'boolen'.*bool"),
    ("big boolean", "big bytes", "column 'big': has a type that events cannot have .got 'bytes'"),
    ("big boolean", "landed_at timestamp", "'landings' column 'landed_at': is the event time or the created time"),
    ("big boolean", "written timestamp", "'landings' column 'written': is the event time or the created time"),
    (f'"skewless.columns": {COLUMNS}', "", "event source 'landings': does not declare the columns .*skewless.columns"),
    ("carrier string", "carrier int", "key 'carrier': is not a column of type string of event source .*got 'int32'"),
    ("carrier string,", "", "key 'carrier': is not a column of type string .*got 'no such column'"),
    ('event_id": "ref"', 'event_id": "id"', "event_id': names a column that events do not have .got 'id'.*carrier"),
    ('event_id": "ref"', 'event_id": "big"', "event_id': names a column of type bool, which cannot .*got 'big'"),
    ("skewless.event_id", "skewless.id", "'landings' tag: is unknown .got 'skewless.id'.*skewless.scale.COLUMN"),
    ('scale.fuel": "2"', 'scale.fuel": "13"', "'skewless.scale.fuel': is not a supported number .*got '13'.*0 to 12"),
    ('scale.fuel": "2"', 'scale.fuel": "-1"', "is not a supported number of decimal digits .got '-1'"),
    ('scale.fuel": "2"', 'scale.food": "2"', "scale.COLUMN: names a column that events do not have .got 'food'"),
    ('scale.fuel": "2"', 'scale.due": "2"', "scale.due': is for a column that is not a number .*got 'timestamp'"),
    ('delay": "5m"', 'delay": "5 m"', "'landings' tag 'skewless.delay': is not a duration .got '5 m'"),
    ('"skewless.delay": "5m"', '"skewless.dedupe": "ever"', "'skewless.dedupe': is not a duration .got 'ever'"),
    ('"skewless.delay": "5m"', '"skewless.latest": "soon"', "'skewless.latest': is not a date .got 'soon'.*2024-01-31"),
    ('"skewless.delay": "5m"', '"skewless.earliest": "2300-01-01"', "'skewless.latest': is not after"),
    ('path="data/landings.parquet", timestamp_field="landed_at"', 'path="x"', "source 'x': has no timestamp_field"),
    ('parquet", timestamp_field="landed_at"', 'parquet", timestamp_field="due"', "another timestamp_field.*landed_at"),
    ('"written")', '"written", field_mapping={"a": "b"})', "batch_source: renames columns"),
    ("batch_source=past", 'batch_source=RequestSource(name="r", schema=[])', "has a source that cannot be read"),
    (LANDED, 'source=landings,\n    timestamp_field="due",', "batch_source: has another timestamp_field than"),
    (
        PUSH,
        (KAFKA % "").replace("JsonFormat(", 'type("XmlFormat", (JsonFormat,), {})('),
        "messages of an unsupported format.*XmlFormat.*Json",
    ),
    ('delay": "5m"', 'subject": "s"', "event source 'landings': is a push source and has a subject .got 's'"),
    (PUSH, (KAFKA % "").replace("air.landings", ""), "event source 'landings': has no topic"),
    (PUSH, (KAFKA % "").replace("broker:9092", ""), "event source 'landings': has no kafka_bootstrap_servers"),
    (PUSH, (KAFKA % "").replace("landed_at", "due"), "'carrier_now': has another timestamp_field than its event"),
]
DUCK = """from skewless import DuckDBSource
duck = DuckDBSource(path="a.duckdb", table="t", timestamp_field="landed_at")
carrier_now = """


@pytest.mark.parametrize(("old", "new", "message"), SOURCE_REFUSALS)
def test_a_source_that_cannot_be_right_is_refused(repo: Path, old: str, new: str, message: str) -> None:
    edit(repo, old, new)
    with pytest.raises(DefinitionError, match=message):
        compile_repo(repo)


def test_a_source_that_is_no_stream_is_refused(repo: Path) -> None:
    edit(repo, "carrier_now = ", DUCK)
    edit(repo, "source=landings", "source=duck")
    with pytest.raises(DefinitionError, match=r"is not a supported stream.*'DuckDBSource'.*PushSource"):
        compile_repo(repo)


def average(new: str) -> tuple[str, str]:
    return AVERAGE, f"Aggregation({new}),"


VIEW_REFUSALS = [
    (TTL, TTL + "online=False,", "'carrier_now': is not online .got 'online=False'"),
    (
        TTL,
        TTL + "ttl=DAY,",
        "'carrier_now': has a ttl shorter than a window .got '1 day.*events expire with their window",
    ),
    (TTL, "", "windowed view 'carrier_now': has no entity"),
    ('name="carrier_now"', 'name="event"', "windowed view 'event': has a reserved name"),
    ('name="carrier_now"', 'name="request"', "windowed view 'request': has a reserved name"),
    (WHERE, '"skewless.were": "big",', "'carrier_now' tag: is unknown .got 'skewless.were'.*skewless.where"),
    (WHERE, '"skewless.where": "loss",', "'skewless.where': names a column that is not boolean .got 'loss float64'"),
    (WHERE, '"skewless.where": "tiny",', "'skewless.where': names a column that events do not have .got 'tiny'"),
    (WHERE, '"skewless.distinct": "1",', "'skewless.distinct': is not a supported size .*got '1'.*2 to 4096"),
    (WHERE, '"skewless.distinct": "many",', "'skewless.distinct': is not a supported size .*got 'many'"),
    (WHERE, '"skewless.scale.gate": "1",', "'skewless.scale.gate': is for a column that the view does not sum"),
    (WHERE, '"skewless.scale.late": "1",', "'skewless.scale.late': is for a column that is not a number"),
    ('scale.arr_delay": "3"', 'scale.arr_delay": "x"', "'skewless.scale.arr_delay': is not a supported number"),
    (
        *average('column="arr_delay", function="median", time_window=HOUR'),
        "unknown function .got .median..*one of count.*avg",
    ),
    (
        *average('column="delay", function="avg", time_window=HOUR'),
        "names a column that events do not have .got 'delay'",
    ),
    (*average('column="written", function="last", time_window=HOUR'), "names a column that .*got 'written'"),
    (*average('column="landed_at", function="std", time_window=HOUR'), "computes std of times.*landed_at timestamp"),
    (*average('function="count", time_window=HOUR'), "aggregation 'count__3600s': has no column.*a key counts every"),
    (*average('column="plane", function="last", time_window=HOUR'), "computes last of text .got 'plane string'"),
    (*average('column="plane", function="sum", time_window=HOUR'), "computes sum of text .got 'plane string'"),
    (*average('column="due", function="std", time_window=HOUR'), "computes std of times, whose squares are too"),
    (*average('column="gate", function="sum"'), "aggregation 'sum_gate': has no time_window"),
    (*average('column="gate", function="sum", time_window=401 * DAY'), "has a time_window longer than 400 days"),
    (
        *average('column="gate", function="sum", time_window=DAY / 288'),
        "window of 300 s: has a hop that is not .*got '300",
    ),
    (
        *average('column="gate", function="sum", time_window=DAY, slide_interval=timedelta(minutes=7)'),
        "'carrier_now': has a hop that does not divide the next larger hop .got '300 s and 420 s'",
    ),
    (
        *average('column="gate", function="sum", time_window=HOUR, slide_interval=timedelta(milliseconds=1500)'),
        "has a hop that is not a whole number of seconds .*got '1.5 s'",
    ),
    (
        *average('column="gate", function="sum", time_window=HOUR, name="fuel_day"'),
        "two features with one name.*fuel_day",
    ),
    (*average('column="gate", function="sum", time_window=HOUR, name="Fuel_Day"'), "differ only in case"),
    (*average('column="gate", function="last_33", time_window=HOUR'), "unsupported length.*got 'last_33'.*1 to 32 val"),
    (*average('column="gate", function="first_0", time_window=HOUR'), "unsupported length .*got 'first_0'"),
    (*average('column="gate", function="max_2", time_window=HOUR'), "unknown function .got 'max_2'.*first_K or last_K"),
    (
        'column="plane", function="nunique", time_window=DAY',
        'column="plane", function="last_2", time_window=DAY',
        "computes last of text",
    ),
    (
        *average(
            'column="gate", function="last_2", time_window=HOUR, name="x"), Aggregation(column="gate", '
            'function="max", time_window=HOUR, name="x_2"'
        ),
        "two features with one name.*x_2",
    ),
    (*average('column="gate", function="sum", time_window=HOUR, name="carrier"'), "with the name of a key.*'carrier'"),
    (*average('column="gate", function="sum", time_window=HOUR, name="Carrier"'), "differ only in case"),
    (*average('column="gate", function="sum", time_window=HOUR, name="__t"'), "has a reserved name .got '__t'"),
    (TTL, TTL + 'schema=[Field(name="x", dtype=Float64)],', "schema: does not list the features .*fuel_day.*x"),
    (
        "udf=derive.lateness,",
        'udf=derive.lateness, mode="pandas",',
        "has a transform in an unsupported mode.*got .mode='pandas'.*",
    ),
    (
        '"skewless.derived": "late boolean, loss double",',
        "",
        "does not declare the columns that its function returns.*skewless.derived",
    ),
    ("late boolean, loss double", "late boolean, gate double", "with the name of an event column .got 'gate'"),
    ("late boolean, loss double", "late boolean, landed_at timestamp", "with the name of an event column"),
    ("late boolean, loss double", "late boolean, Gate double", "differ only in case"),
    ("late boolean, loss double", "late boolean, loss bytes", "'skewless.derived' column 'loss': has a type that"),
    ("late boolean, loss double", "late boolean, loss string", "derived column 'loss': is not of the declared type"),
    (
        "late boolean, loss double",
        "late boolean, gain double",
        "transform 'carrier_now' output 'gain': is not an array",
    ),
    ('inputs": "gate, arr_delay"', 'inputs": "gate, delay"', "inputs': names a column that events do not have"),
    ('inputs": "gate, arr_delay"', 'inputs": "gate, gate"', "inputs': is empty, or names a column twice"),
    ('inputs": "gate, arr_delay"', 'inputs": "gate"', "transform 'carrier_now': fails on .* KeyError .got .*arr_delay"),
    ("udf=derive.lateness,", "", "tag 'skewless.inputs': describes a function that the view does not have"),
    ("udf=derive.lateness,", "udf=lambda events: events,", "transform 'carrier_now': imports more than numpy"),
]


@pytest.mark.parametrize(("old", "new", "message"), VIEW_REFUSALS)
def test_a_view_that_cannot_be_right_is_refused(repo: Path, old: str, new: str, message: str) -> None:
    edit(repo, old, new)
    with pytest.raises(DefinitionError, match=message):
        compile_repo(repo)


SLIDES = """[
    Aggregation(column="gate", function="max", time_window=DAY, name=f"g{i}", slide_interval=timedelta(seconds=2**i))
    for i in range(%d)
]"""


def aggregate(repo: Path, aggregations: str) -> None:
    """Replace the view's aggregations."""
    text = (repo / "definitions.py").read_text()
    start, end = text.index("    aggregations=["), text.index("    udf=derive")
    (repo / "definitions.py").write_text(f"{text[:start]}    aggregations={aggregations},\n{text[end:]}")


def test_a_view_without_aggregations_is_refused(repo: Path) -> None:
    aggregate(repo, "None")
    message = r"'carrier_now': is a StreamFeatureView without aggregations.*FeatureView"
    with pytest.raises(DefinitionError, match=message):
        compile_repo(repo)


def test_a_tile_can_name_fifteen_hops(repo: Path) -> None:
    edit(repo, '"skewless.scale.arr_delay": "3",', "")
    edit(repo, "carrier_now, hopes]", "carrier_now]")
    edit(repo, "sources=[clock, carrier_now]", "sources=[clock]")
    edit(repo, '"fuel_day"', '"hour"', file="transforms.py")
    aggregate(repo, SLIDES % 15)
    assert len(compiled_view(repo).hops) == 15


def test_more_hops_than_a_tile_can_name_are_refused(repo: Path) -> None:
    aggregate(repo, SLIDES % 16)
    with pytest.raises(
        DefinitionError, match=r"'carrier_now': has more than 15 different hops.*got 16.*split the view"
    ):
        compile_repo(repo)


def test_more_sketches_than_a_tile_can_name_are_refused(repo: Path) -> None:
    edit(repo, "carrier string,", "carrier string, " + "".join(f"c{i} int, " for i in range(16)))
    aggregate(repo, '[Aggregation(column=f"c{i}", function="nunique", time_window=DAY) for i in range(16)]')
    with pytest.raises(DefinitionError, match=r"has more than 15 different columns of count_distinct.*got 16"):
        compile_repo(repo)


def test_a_feature_that_is_declared_as_text_is_refused(repo: Path) -> None:
    names = [column.name for column in compiled_view(repo).features]
    fields = ", ".join(f'Field(name="{name}", dtype=String)' for name in names)
    edit(repo, TTL, f"entities=[carrier], schema=[{fields}],")
    with pytest.raises(DefinitionError, match=r"feature 'avg_arr_delay_3600s': has a type that .*as Float64"):
        compile_repo(repo)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import time\n", "transform 'carrier_now': imports more than numpy .got 'time'"),
        ("\n", None),
    ],
)
def test_5_1_a_function_imports_numpy_only(repo: Path, text: str, message: str | None) -> None:
    (repo / "derive.py").write_text(text + (repo / "derive.py").read_text())
    if message is None:
        compile_repo(repo)
        return
    with pytest.raises(DefinitionError, match=message):
        compile_repo(repo)


def test_5_1_a_function_that_works_across_events_is_refused(repo: Path) -> None:
    edit(repo, "np.maximum(delay, 2.5)", "np.flip(delay)", file="derive.py")
    with pytest.raises(DefinitionError, match="transform 'carrier_now' output 'loss': depends on other rows"):
        compile_repo(repo)


def test_a_service_that_asks_a_window_for_more_is_refused(repo: Path) -> None:
    edit(repo, "features=[carrier_now, hopes]", 'features=[carrier_now[["fuel"]]]')
    with pytest.raises(DefinitionError, match=r"'air' view 'carrier_now': has no such feature .got 'fuel'.*fuel_day"):
        compile_repo(repo)


def test_a_request_field_may_not_be_named_as_the_key_of_a_window(repo: Path) -> None:
    edit(repo, 'schema=[Field(name="hour", dtype=Float64)]', 'schema=[Field(name="Carrier", dtype=String)]')
    with pytest.raises(DefinitionError, match="request field 'Carrier': has the name of a join key"):
        compile_repo(repo)


def test_two_views_share_a_source(repo: Path) -> None:
    text = (repo / "definitions.py").read_text()
    start, end = text.index("carrier_now = "), text.index("clock = ")
    second = text[start:end].replace("carrier_now", "flight_now").replace("[carrier]", "[flight]")
    edit(repo, "clock = ", second + "\nclock = ")
    plan = compile_repo(repo).plan
    assert [view.name for view in plan.windows] == ["carrier_now", "flight_now"]
    assert [source.name for source in plan.sources] == ["landings"]
    edit(
        repo,
        '[flight],\n    source=landings,\n    timestamp_field="landed_at"',
        '[flight],\n    source=landings,\n    timestamp_field="due"',
    )
    with pytest.raises(DefinitionError, match=r"batch_source: has another timestamp_field"):
        compile_repo(repo)


def test_a_source_of_two_meanings_is_refused(repo: Path) -> None:
    text = (repo / "definitions.py").read_text()
    first, second, end = text.index("landings = "), text.index("carrier_now = "), text.index("clock = ")
    source = text[first:second].replace("landings = ", "others = ").replace('"5m"', '"6m"')
    view = text[second:end].replace("carrier_now", "other_now").replace("source=landings", "source=others")
    edit(repo, "clock = ", f"{source}\n{view}\nclock = ")
    with pytest.raises(DefinitionError, match="event source 'landings': is defined twice"):
        compile_repo(repo)
