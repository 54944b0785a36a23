"""Sources as people have them: odd names, CSV, folders, every type and every edge value, to the last bit."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.keys import KeyValue
from skewless.contract.plan import View
from skewless.contract.rows import ViewRead
from skewless.infra.reads.offline.sources import glob_files
from tests.worlds.latest import HOUR, LatestRedisWorld, same, times
from tests.worlds.plans import make_view

ODD = (
    'quo"te',
    "it's",
    "select",
    "from",
    "order_y",
    "x_y",
    "Mixed Case",
    "a.b",
    "日本",
    "source_row",
    "percent%s",
    "back\\",
)
NOW = 100 * HOUR


def double(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def check_both(latest: LatestRedisWorld, view: View, *keys: Sequence[KeyValue | None]) -> ViewRead:
    """Materialise, and return what is read, having compared both sides."""
    latest.run(view)
    read = latest.online(view, *keys)
    assert same(read, latest.offline(view, *keys))
    return read


def test_columns_of_any_name(latest: LatestRedisWorld) -> None:
    view = make_view(keys={"group": DType.STRING, 'k"ey': DType.INT64}, features=dict.fromkeys(ODD, DType.INT64))
    columns = {name: pa.array([i, i + 100], pa.int64()) for i, name in enumerate(ODD)}
    keys = {"group": ["日|{", ""], 'k"ey': [1, 2]}
    latest.write("v.parquet", {**keys, **columns, "event": times(HOUR, HOUR), "created": times(HOUR, HOUR)})
    read = check_both(latest, view, ["日|{", 1], ["", 2], ["日|{", 2])
    assert [read.values[name][:2].tolist() for name in ODD] == [[i, i + 100] for i in range(len(ODD))]
    assert read.has_row.tolist() == [True, True, False]


def test_columns_that_swap_their_names(latest: LatestRedisWorld) -> None:
    view = make_view(
        features={"a": DType.INT64, "b": DType.INT64}, renamed={"a": "b", "b": "a", "id": "the id"}, created=None
    )
    latest.write("v.parquet", {"the id": [1], "a": [10], "b": [20], "event": times(HOUR)})
    read = check_both(latest, view, [1])
    assert (read.values["a"][0], read.values["b"][0]) == (20, 10)


FLOATS = (1 << 63, 0x7FF8000000000ABC, 0x7FF0000000000001, 0x7FF0000000000000, 0xFFF0000000000000, 1)


def test_every_edge_value_comes_through_to_the_last_bit(latest: LatestRedisWorld) -> None:
    n = len(FLOATS)
    view = make_view(features={f"c_{dtype}": dtype for dtype in DType} | {"nothing": DType.STRING})
    floats32 = np.array([1 << 31, 0x7FC00ABC, 0x7F800001, 0x7F800000, 0xFF800000, 1], dtype=np.uint32).view(np.float32)
    latest.write(
        "v.parquet",
        {
            "id": pa.array(range(n), pa.int64()),
            "event": times(*[HOUR] * n),
            "created": times(*[HOUR] * n),
            "c_int32": pa.array([-(2**31), 2**31 - 1, 0, None, 1, 2], pa.int32()),
            "c_int64": pa.array([2**53 + 1, None, -(2**63), 2**63 - 1, 0, -1], pa.int64()),
            "c_float32": pa.array(floats32),
            "c_float64": pa.array(np.array(FLOATS, dtype=np.uint64).view(np.float64)),
            "c_bool": pa.array([True, False, None, True, False, None]),
            "c_string": pa.array(["", None, "日\x00本", "{|}%", " a ", "é"]),
            "c_bytes": pa.array([b"", b"\x00\xff", None, b"a", b"'", b"\\"], pa.binary()),
            "c_timestamp": times(-62_135_596_800_000_000, -1, 0, None, 1, 253_402_300_799_999_999),
            "nothing": pa.nulls(n),
        },
    )
    read = check_both(latest, view, *[[i] for i in range(n)])
    assert read.values["c_float64"].view(np.uint64).tolist() == list(FLOATS)
    assert read.values["c_float32"].tobytes() == floats32.tobytes()
    assert read.values["c_int64"].tolist() == [2**53 + 1, 0, -(2**63), 2**63 - 1, 0, -1]
    assert read.nulls["c_int64"].tolist() == [False, True, False, False, False, False]
    assert read.values["c_string"].tolist() == ["", None, "日\x00本", "{|}%", " a ", "é"]
    assert read.values["c_bytes"].tolist() == [b"", b"\x00\xff", None, b"a", b"'", b"\\"]
    assert read.values["c_timestamp"].tolist() == [-62_135_596_800_000_000, -1, 0, 0, 1, 253_402_300_799_999_999]
    assert read.nulls["nothing"].all()


def test_1_1_events_before_1970_and_in_9999(latest: LatestRedisWorld) -> None:
    view = make_view(created=None)
    events = (-62_135_596_800_000_000, -1, 253_402_300_799_999_999 - HOUR)
    latest.write("v.parquet", {"id": [1, 2, 3], "event": times(*events), "x": [1.0, 2.0, 3.0]})
    latest.clock.set(253_402_300_799_999_999)
    assert check_both(latest, view, [1], [2], [3]).versions.event_ts.tolist() == list(events)


def test_1_1_times_of_every_unit_and_zone(latest: LatestRedisWorld) -> None:
    view = make_view(features={"at": DType.TIMESTAMP}, created=None, path="parts")
    for i, kind in enumerate(("s", "ms", "us", "ns")):
        stamp = (
            pa.array([7_200], pa.int64()).cast(pa.timestamp("s", tz="Asia/Tokyo")).cast(pa.timestamp(kind, tz="UTC"))
        )
        latest.write(f"parts/{kind}/{i}.parquet", {"id": [i], "event": stamp, "at": stamp})
    read = check_both(latest, view, [0], [1], [2], [3])
    assert read.versions.event_ts.tolist() == read.values["at"].tolist() == [2 * HOUR] * 4


def test_a_file_as_pandas_writes_it(latest: LatestRedisWorld) -> None:
    view = make_view(features={"x": DType.FLOAT64, "n": DType.INT64, "s": DType.STRING})
    frame = pd.DataFrame(
        {
            "id": [1, 2],
            "event": pd.to_datetime(["1970-01-01T01:00Z", "1970-01-01T02:00Z"]),
            "created": pd.to_datetime(pd.Series(["1970-01-01T01:00Z", None])),
            "x": [1.5, None],
            "n": [3, None],
            "s": [None, None],
        }
    )
    frame.to_parquet(latest.root / "v.parquet")
    read = check_both(latest, view, [1], [2])
    assert read.versions.event_ts.tolist() == [HOUR, 2 * HOUR]
    assert read.values["n"].tolist() == [3, 0]
    assert [read.nulls[name].tolist() for name in ("x", "n", "s")] == [[False, True], [False, True], [True, True]]


@pytest.mark.parametrize("stamp", ["1970-01-01T02:00:00Z", "1970-01-01 02:00:00+00:00", "1970-01-01T04:00:00+02:00"])
def test_a_csv_file(latest: LatestRedisWorld, stamp: str) -> None:
    view = make_view(keys={"id": DType.STRING}, features={"x": DType.FLOAT64, "n": DType.INT64}, path="v.csv")
    text = f'id,event,created,x,n\n"a,b",{stamp},{stamp},1.5,7\nc,{stamp},{stamp},,\n'
    (latest.root / "v.csv").write_text(text)
    read = check_both(latest, view, ["a,b"], ["c"])
    assert read.versions.event_ts.tolist() == [2 * HOUR] * 2
    assert read.values["x"].tolist() == [1.5, 0.0]
    assert read.nulls["n"].tolist() == [False, True]


def test_a_csv_file_with_times_without_zone_is_refused(latest: LatestRedisWorld) -> None:
    (latest.root / "v.csv").write_text("id,event,created,x\n1,1970-01-01 02:00:00,1970-01-01 02:00:00,1.5\n")
    with pytest.raises(SourceError, match="column 'event': is a time without a zone"):
        latest.run(make_view(path="v.csv"))


@pytest.mark.parametrize("path", ["parts", "parts/*.parquet", "parts/**/*.parquet", "parts/**.parquet"])
def test_a_folder_or_glob_that_grows(latest: LatestRedisWorld, path: str) -> None:
    view = make_view(created=None, path=path)
    latest.write("parts/one.parquet", {"id": [1], "event": times(HOUR), "x": [1.0], "extra": ["a"]})
    latest.run(view)
    latest.write("parts/two.parquet", {"x": [2.0], "event": times(2 * HOUR), "id": pa.array([1], pa.int32())})
    assert check_both(latest, view, [1]).values["x"].tolist() == [2.0]


@given(st.lists(st.text("*?[]!-.a", min_size=1, max_size=6), min_size=1, max_size=2))
@example(["..**"])
@example(["***", "**a"])
def test_a_glob_finds_files_or_none_and_two_asterisks_in_a_name_are_one(parts: list[str]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name, "a", "a")
        folder.mkdir(parents=True)
        (folder / "a.a").write_text("")
        found = set(glob_files(folder.joinpath(*parts)))
        assert all(path.exists() for path in found)
        if not {"**"} & {*parts}:
            assert found == set(Path(name).glob("/".join(["a", "a", *(re.sub(r"\*+", "*", part) for part in parts)])))


@pytest.mark.parametrize(
    ("dtype", "column"),
    [
        (DType.INT64, pa.array(["1"])),
        (DType.FLOAT64, times(1)),
        (DType.FLOAT64, pa.array([1], pa.int64()).cast(pa.timestamp("ns", tz="UTC"))),
        (DType.STRING, pa.array([1.5])),
        (DType.BOOL, pa.array([1])),
        (DType.BYTES, pa.array(["a"])),
        (DType.TIMESTAMP, pa.array([1])),
    ],
)
def test_a_column_of_another_type_is_refused(latest: LatestRedisWorld, dtype: DType, column: pa.Array) -> None:
    latest.write("v.parquet", {"id": [1], "event": times(HOUR), "created": times(HOUR), "x": column})
    with pytest.raises(SourceError, match="column 'x': does not fit the declared type"):
        latest.run(make_view(features={"x": dtype}))


def test_columns_whose_names_differ_only_in_case_are_not_mixed_up(latest: LatestRedisWorld) -> None:
    latest.write("v.parquet", {"id": [1], "event": times(HOUR), "x": [1], "X": [2]})
    with pytest.raises(SourceError, match=r"has no such column .got 'X'.*it has id, event, x, X_1"):
        latest.run(make_view(features={"X": DType.INT64}, created=None))
    assert check_both(latest, make_view(features={"x": DType.INT64}, created=None), [1]).values["x"].tolist() == [1]


def test_numbers_that_do_not_fit_are_quarantined_and_others_converted(latest: LatestRedisWorld) -> None:
    view = make_view(features={"small": DType.INT32, "single": DType.FLOAT32}, created=None)
    latest.write(
        "v.parquet",
        {
            "id": range(4),
            "event": times(*[HOUR] * 4),
            "small": pa.array([2**31, 5, -(2**31), 1], pa.int64()),
            "single": pa.array([1.0, 0.1, double(1 << 63), 1e300], pa.float64()),
        },
    )
    read = check_both(latest, view, [0], [1], [2], [3])
    assert read.has_row.tolist() == [False, True, True, False]
    assert read.values["single"][1] == np.float32(0.1)
    assert np.signbit(read.values["single"][2])
    assert {row["id"]: row["__reject"] for row in latest.rejected(view)} == {
        0: "column 'small' does not fit its declared type",
        3: "column 'single' does not fit its declared type",
    }
