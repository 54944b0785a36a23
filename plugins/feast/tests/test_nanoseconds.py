"""Times in nanoseconds become the same microseconds in sources, pushes, streams and appended rows, also before 1970."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureView, Field, FileSource
from feast.types import Int64
from hypothesis import example, given
from hypothesis import strategies as st

from plugins.feast.tests.online.test_messages import CONFIG
from skewless.contract.clock import to_us
from skewless.infra.ingest.streams.parquet_stream import convert_to_utc
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.sources import find_table
from skewless.infra.reads.offline.sql import to_microseconds
from skewless_feast.online_windows import event_payloads
from skewless_feast.rows import frame_to_messages, pack_frame, to_messages
from skewless_feast.saved_rows import fit_rows
from skewless_feast.stored_views import build_stored_view
from tests.worlds.feast_repo import USER
from tests.worlds.streams import SOURCE

_FILE_SOURCE = FileSource(path="v.parquet", timestamp_field="t")
_VIEW = FeatureView(
    name="v",
    entities=[USER],
    ttl=timedelta(days=1),
    source=_FILE_SOURCE,
    schema=[Field(name="user_id", dtype=Int64), Field(name="n", dtype=Int64)],
)
_NEAR = st.integers(-2_001, 2_001)
_ANY = st.integers(-9_000_000_000_000_000_000, 9_000_000_000_000_000_000)
_TIMES = st.lists(_NEAR | _ANY, min_size=1, max_size=5)
_ZONES = st.sampled_from([None, "UTC", "Asia/Tokyo"])


def rows_of(times: list[int], zone: str | None) -> pa.Table:
    stamps = pa.array(times, pa.int64()).cast(pa.timestamp("ns", tz=zone))
    numbers = pa.array(range(len(times)), pa.int64())
    return pa.table({"user_id": numbers, "t": stamps, "n": numbers})


def read_source(path: Path) -> list[int]:
    """Return the event times that a source has for skewless."""
    table = find_table(path.parent, path.name, "v")
    with connect(path.parent) as connection, table.open(connection):
        time = to_microseconds("t", table.column_types(connection)["t"])
        rows = connection.sql(f"SELECT {time} FROM {table.relation} ORDER BY n", params=table.parameters)
        return [us for (us,) in rows.fetchall()]


@given(times=_TIMES, zone=_ZONES)
@example(times=[-1, -1_000, -1_001, 1, 999], zone=None)
def test_every_input_floors_nanoseconds_as_a_source_does(
    times: list[int], zone: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows, path = rows_of(times, zone), tmp_path_factory.getbasetemp() / "nanoseconds.parquet"
    pq.write_table(rows, path)
    expected = read_source(path)
    assert expected == [time // 1_000 for time in times]

    stored, positions = build_stored_view(_VIEW, CONFIG, dict), np.arange(len(times))
    packed = pack_frame(stored, "p", rows, _FILE_SOURCE, positions)
    assert packed is not None
    assert packed.event_ts.tolist() == expected

    frame: Any = rows.to_pandas()
    source = replace(SOURCE, event_column="t", columns=(), id_column=None)
    assert [json.loads(payload)["t"] for payload in event_payloads(source, frame)] == expected
    assert [to_us(row[2]) for row in frame_to_messages(_VIEW, frame)] == expected
    assert [to_us(row[2]) for batch in to_messages(_VIEW, rows, 2) for row in batch] == expected

    (batch,) = rows.combine_chunks().to_batches()
    assert convert_to_utc(batch)["t"].cast(pa.int64()).to_pylist() == expected


@given(times=_TIMES, zone=_ZONES, unit=st.sampled_from(["s", "ms", "us", "ns"]))
def test_appended_times_are_floored_to_the_unit_of_the_source(
    times: list[int], zone: str | None, unit: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    schema = pa.schema([("user_id", pa.int64()), ("t", pa.timestamp(unit, tz="UTC")), ("n", pa.int64())])
    pq.write_table(schema.empty_table(), folder / "appended.parquet")
    table = find_table(folder, "appended.parquet", "v")
    divisor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    fitted = fit_rows(table, schema, rows_of(times, zone))
    assert fitted["t"].cast(pa.int64()).to_pylist() == [time // divisor for time in times]
