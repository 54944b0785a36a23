"""A project whose service has views of two keys, windows and a transform, with ties, late rows and nulls."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.clock import OffsetClock
from skewless.contract.spec import TimeMode
from skewless.project import Project
from tests.worlds.command_line import done
from tests.worlds.latest import times
from tests.worlds.windowed import CARRIER_NOW, CARRIERS, CONFIG, DAY, FACTS, HEAD, HOUR, LANDINGS, NOW

SERVICE, TIME = "everything", "asked_at"
ROWS = 3_000
AIRPORTS = """\
airport = Entity(name="airport", join_keys=["airport"], value_type=ValueType.INT64)
airports = FeatureView(
    name="airports",
    entities=[airport],
    ttl=timedelta(hours=30),
    schema=[
        Field(name="airport", dtype=Int64),
        Field(name="gates", dtype=Int64),
        Field(name="wind", dtype=Float32),
        Field(name="city", dtype=String),
        Field(name="open", dtype=Bool),
        Field(name="built", dtype=UnixTimestamp),
    ],
    source=FileSource(path="data/airports.parquet", timestamp_field="event_time", created_timestamp_column="created"),
)
import transforms
trip = RequestSource(name="trip", schema=[Field(name="miles", dtype=Float64), Field(name="seats", dtype=Int64)])
pace = OnDemandFeatureView(
    name="pace",
    sources=[trip, carrier_now],
    schema=[Field(name="per_seat", dtype=Float64), Field(name="full", dtype=Int64)],
    mode="python",
    udf=transforms.pace,
    udf_string=Path(transforms.__file__).read_text(),
)
everything = FeatureService(name="everything", features=[carrier_now, facts, airports, pace])
only_airports = FeatureService(name="only_airports", features=[airports])
"""
TRANSFORMS = '''\
import numpy as np


def pace(inputs):
    """Return the miles per seat, and a number of its own type."""
    miles, seats = (np.asarray(inputs[name], dtype=np.float64) for name in ("miles", "seats"))
    with np.errstate(all="ignore"):
        outputs = {"per_seat": miles / seats + np.asarray(inputs["mean_delay_1h"], dtype=np.float64)}
    outputs["full"] = np.asarray(inputs["seats"], dtype=np.int64) // 2
    return {name: column.tolist() for name, column in outputs.items()} if isinstance(miles, list) else outputs
'''


def make_repo(repo: Path) -> Path:
    """Write the project as of ``NOW``, and fill its logs."""
    rng = np.random.default_rng(11)
    (repo / "data").mkdir(parents=True)
    for name, text in {
        "feature_store.yaml": CONFIG,
        "definitions.py": HEAD + LANDINGS + CARRIER_NOW + FACTS + AIRPORTS,
        "transforms.py": TRANSFORMS,
        "skewless.yaml": f"clock: file:{repo}/clock\nthreads: 1\n",
    }.items():
        (repo / name).write_text(text)
    OffsetClock.create(repo / "clock").set(NOW)
    n = 4_000
    # Whole minutes, so that many events of a carrier have the same time, and many requests the time of an event.
    landed = NOW - DAY + rng.integers(0, 24 * 60, n) * (HOUR // 60)
    late = np.where(rng.random(n) < 0.2, rng.integers(0, HOUR, n), 0)
    _write(
        repo / "data/landings.parquet",
        carrier=pa.array(rng.choice(CARRIERS, n), mask=rng.random(n) < 0.02),
        arr_delay=pa.array(rng.normal(0, 30, n).round(1), mask=rng.random(n) < 0.1),
        landed_at=times(*landed),
        written=times(*(landed + late)),
    )
    _write(
        repo / "data/facts.parquet",
        carrier=CARRIERS,
        fleet=[950.0, -0.0, None],
        event_time=times(*[NOW - 9 * DAY] * 3),
        created=times(*[NOW - 9 * DAY] * 3),
    )
    _write_airports(repo, rng)
    for verb in ("apply", "import", "materialize"):
        done(verb, "--repo", repo)
    return repo


def _write_airports(repo: Path, rng: np.random.Generator) -> None:
    n = 900
    # Of exact ties the later row in the file wins.
    event = NOW - 2 * DAY + rng.integers(0, 40, n) * HOUR
    created = event + rng.integers(0, 3, n) * HOUR
    _write(
        repo / "data/airports.parquet",
        airport=pa.array(2**53 + rng.integers(0, 20, n), mask=rng.random(n) < 0.02),
        gates=pa.array(2**60 + np.arange(n), mask=rng.random(n) < 0.1),
        wind=pa.array(rng.normal(size=n).astype(np.float32), mask=rng.random(n) < 0.1),
        city=pa.array(rng.choice(["Łódź", "", "Ulm"], n), mask=rng.random(n) < 0.1),
        open=rng.random(n) < 0.5,
        built=times(*(rng.integers(-DAY, DAY, n))),
        event_time=times(*event),
        created=times(*created),
    )


def write_entities(path: Path) -> pa.Table:
    """Write entity rows with null and unknown keys, duplicates, equal times, and columns of many types."""
    rng = np.random.default_rng(12)
    n = ROWS - ROWS // 10
    asked = np.where(rng.random(n) < 0.5, rng.integers(0, DAY, n), rng.integers(0, 24 * 60, n) * (HOUR // 60))
    table = pa.table(
        {
            "carrier": pa.array(rng.choice([*CARRIERS, "??", "a|b"], n), mask=rng.random(n) < 0.05),
            "airport": pa.array(2**53 + rng.integers(0, 25, n), mask=rng.random(n) < 0.05),
            TIME: times(*(NOW - DAY + asked)),
            "miles": pa.array(rng.normal(500, 200, n), mask=rng.random(n) < 0.1),
            "seats": rng.integers(0, 300, n),
            "local": pa.array(NOW + rng.integers(0, DAY, n)).cast(pa.timestamp("us")),
            "price": pa.array([Decimal(int(cents)).scaleb(-2) for cents in rng.integers(0, 10**6, n)]),
            "day": [date(1969, 12, 1 + i % 31) for i in range(n)],
            "odd": rng.choice([-0.0, 0.0, 1e-320, np.inf], n),
            "tags": pa.array([[1, None, i] for i in range(n)], pa.list_(pa.int32()), mask=rng.random(n) < 0.1),
            "raw": pa.array([bytes([i % 256]) for i in range(n)], mask=rng.random(n) < 0.1),
        }
    )
    table = pa.concat_tables([table, table.slice(0, ROWS // 10)])  # exact duplicates
    pq.write_table(table, path)
    return table


def features_of_file(repo: Path, file: Path, out: Path, mode: TimeMode, service: str = SERVICE) -> pa.Table:
    """Return what ``skewless dataset`` writes for a file of entity rows."""
    with Project(repo) as project:
        project.dataset(file, service, out, mode=mode, time=TIME)
    return pa.concat_tables([pq.read_table(part) for part in sorted(out.glob("part-*.parquet"))])


def append_features(own: pa.Table, dataset: pa.Table) -> pa.Table:
    """Return entity rows with the features of a dataset, which may show their own columns in other types."""
    for name in dataset.column_names:
        if name not in own.column_names:
            own = own.append_column(name, dataset[name])
    return own


def find_differences(actual: pa.Table, expected: pa.Table) -> list[str]:
    """Return the columns of two tables that differ in name, type, null or any bit, row by row."""
    names = [name for name in expected.column_names if name not in actual.column_names]
    if actual.num_rows != expected.num_rows or actual.num_columns != expected.num_columns:
        names.append(f"{actual.shape} is not {expected.shape}")
    shared = [name for name in expected.column_names if name not in names]
    return names + [name for name in shared if _bits(actual[name]) != _bits(expected[name])]


def _bits(column: pa.ChunkedArray) -> tuple[str, list[object]]:
    array, kind = column.combine_chunks(), str(column.type)
    if pa.types.is_floating(array.type):
        width = array.type.bit_width
        values = np.asarray(array.fill_null(0.0)).view(f"i{width // 8}").tolist()
        return kind, [
            value if valid else None for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)
        ]
    if pa.types.is_list(array.type):  # an engine calls its elements by another name
        kind = f"list {array.type.value_type}"
    if pa.types.is_timestamp(array.type):  # Spark shows them in the zone of its session
        kind = f"timestamp {array.type.tz is not None}"
        array = array.cast(pa.int64())
    return kind, array.to_pylist()


def _write(path: Path, **columns: object) -> None:
    pq.write_table(pa.table(columns), path)
