"""The windowed project with events of every type and a view that uses them all, without data; tests edit it."""

from __future__ import annotations

from pathlib import Path

from tests.worlds.windowed import CONFIG, HEAD

DEFINITIONS = (
    f"import derive\nimport transforms\n{HEAD}"
    """\
flight = Entity(name="flight", join_keys=["flight"], value_type=ValueType.INT64)

past = FileSource(path="data/landings.parquet", timestamp_field="landed_at", created_timestamp_column="written")
landings = PushSource(
    name="landings",
    batch_source=past,
    tags={
        "skewless.columns": "carrier string, flight bigint, arr_delay double, fuel float, gate int, plane string, "
        "big boolean, due timestamp, ref string",
        "skewless.event_id": "ref",
        "skewless.scale.fuel": "2",
        "skewless.delay": "5m",
    },
)

carrier_now = StreamFeatureView(
    name="carrier_now",
    entities=[carrier],
    source=landings,
    timestamp_field="landed_at",
    aggregations=[
        Aggregation(column="arr_delay", function="avg", time_window=HOUR),
        Aggregation(column="fuel", function="sum", time_window=DAY, name="fuel_day"),
        Aggregation(column="fuel", function="stddev", time_window=14 * DAY),
        Aggregation(column="plane", function="nunique", time_window=DAY, slide_interval=2 * HOUR),
        Aggregation(column="flight", function="count", time_window=HOUR),
        Aggregation(column="late", function="sum", time_window=HOUR),
        Aggregation(column="due", function="last", time_window=HOUR),
    ],
    udf=derive.lateness,
    udf_string="",
    tags={
        "skewless.inputs": "gate, arr_delay",
        "skewless.derived": "late boolean, loss double",
        "skewless.where": "big",
        "skewless.scale.arr_delay": "3",
    },
)

clock = RequestSource(name="clock", schema=[Field(name="hour", dtype=Float64)])
hopes = OnDemandFeatureView(
    name="hopes",
    sources=[clock, carrier_now],
    schema=[Field(name="hope", dtype=Float64)],
    mode="python",
    udf=transforms.hope,
    udf_string=Path(transforms.__file__).read_text(),
)
service = FeatureService(name="air", features=[carrier_now, hopes])
"""
)
DERIVE = """\
import numpy as np


def lateness(events):
    delay = np.asarray(events["arr_delay"], dtype=np.float64)
    return {"late": delay > 15, "loss": np.maximum(delay, 2.5)}
"""
TRANSFORMS = """\
import numpy as np


def hope(inputs):
    hope = np.maximum(np.asarray(inputs["fuel_day"], dtype=np.float64), np.asarray(inputs["hour"], dtype=np.float64))
    return {"hope": hope.tolist() if isinstance(inputs["hour"], list) else hope}
"""

# Parts of the definitions that tests replace, and what they put there.
COLUMNS = """"carrier string, flight bigint, arr_delay double, fuel float, gate int, plane string, "
        "big boolean, due timestamp, ref string","""
AVERAGE = 'Aggregation(column="arr_delay", function="avg", time_window=HOUR),'
PUSH = 'PushSource(\n    name="landings",'
KAFKA = """KafkaSource(
    name="landings", timestamp_field="landed_at", topic="air.landings", kafka_bootstrap_servers="broker:9092",
    message_format=JsonFormat(schema_json="%s"),"""
TTL = "entities=[carrier],"


def write_repo(repo: Path) -> Path:
    """Write the repo, without any data, and return it."""
    repo.mkdir()
    texts = {"feature_store.yaml": CONFIG, "definitions.py": DEFINITIONS, "derive.py": DERIVE}
    for name, text in {**texts, "transforms.py": TRANSFORMS}.items():
        (repo / name).write_text(text)
    return repo
