"""Rows and values that cannot be served as they are: counted, converted as Feast does, or refused; the same offline."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from feast import FileSource
from feast.data_format import DeltaFormat
from feast.types import Array, FeastType, Float32, Float64, Int32, Int64, String, UnixTimestamp

from plugins.feast.tests.conformance.test_views import table_frame
from skewless.contract.errors import GateError, RequestError, SourceError
from skewless.infra.ingest.materialization.skipped_rows import read_skipped
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.feast_conformance import NOW, ConformanceProject, ago, asked, table_of
from tests.worlds.feast_repo import users_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
BOOLS = pa.array([True, False, None])
LONG = [2**53 + 1, -(2**63), None]


def value_of(feast_project: ConformanceProject, *ids: int) -> list[Any]:
    return feast_project.online(["v:x"], users_of(*ids))["x"]


def reasons(feast_project: ConformanceProject) -> dict[str, int]:
    return {item.reason: item.rows for item in read_skipped(ProjectState(feast_project.state))}


def be_strict(feast_project: ConformanceProject) -> None:
    (feast_project.root / "skewless.yaml").write_text(yaml.safe_dump({"strict": True}))


MISFITS: dict[str, tuple[FeastType, pa.Array]] = {
    "a fraction": (Int64, pa.array([1.0, 2.5])),
    "2^63": (Int64, pa.array([1.0, 2.0**63])),
    "2^31 in 32 bits": (Int32, pa.array([1, 2**31])),
    "infinity": (Int64, pa.array([1.0, float("inf")])),
    "beyond float32": (Float32, pa.array([1.0, 1e300])),
    "a fraction of a decimal": (Int64, pa.array([Decimal("1.0"), Decimal("2.5")], pa.decimal128(10, 2))),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_misfit_is_counted_refused_if_strict_and_no_history_has_it(
    feast_project: ConformanceProject, name: str
) -> None:
    dtype, values = MISFITS[name]
    feast_project.write("v.parquet", table_of([1, 2], x=values))
    feast_project.apply(feast_project.pushed("v", {"x": dtype}))
    be_strict(feast_project)
    with pytest.raises(GateError, match="1 x column 'x' does not fit its declared type"):
        feast_project.store.materialize(ago(days=1), ago())
    assert value_of(feast_project, 1, 2) == [None, None]
    with pytest.raises(GateError, match="1 x column 'x' does not fit"):
        feast_project.offline(["v:x"], asked(1, 2))
    (feast_project.root / "skewless.yaml").unlink()
    feast_project.store.materialize(ago(days=1), ago())
    assert value_of(feast_project, 1, 2) == [1, None]
    assert feast_project.offline(["v:x"], asked(1, 2))["x"].to_pylist() == [1, None]
    assert reasons(feast_project) == {"column 'x' does not fit its declared type": 1}
    pushed = pd.DataFrame({**table_frame([3, 4]), "x": values.to_pandas()})
    with pytest.raises(SourceError, match=r"has a value that does not fit"):
        feast_project.store.push("v_push", pushed)
    assert value_of(feast_project, 3, 4) == [None, None]


def test_rows_without_a_key_or_time_are_counted_for_every_kind_of_view(feast_project: ConformanceProject) -> None:
    for name, dtype, values in (("v", Float64, [1.0, 2.0, 3.0]), ("w", Array(Float64), [[1.0], [2.0], [3.0]])):
        columns = table_of([1, 2, 3], x=pa.array(values))
        columns["user_id"] = pa.array([1, None, 3], pa.int64())
        columns["event_time"] = pa.array([ago(hours=1), ago(hours=1), None], columns["event_time"].type)
        feast_project.write(f"{name}.parquet", columns)
        feast_project.apply(feast_project.pushed(name, {"x": dtype}))
    feast_project.store.materialize_incremental(ago())
    assert value_of(feast_project, 1, 3) == [1.0, None]
    told = [(item.view, item.reason, item.rows) for item in read_skipped(ProjectState(feast_project.state))]
    assert told == [
        ("source w.parquet_source", "event time is null", 1),
        ("source w.parquet_source", "key 'user_id' is null", 1),
        ("v", "event time is null", 1),
        ("v", "key 'user_id' is null", 1),
    ]
    be_strict(feast_project)
    with pytest.raises(GateError, match="1 x event time is null, 1 x key 'user_id' is null"):
        feast_project.store.materialize(ago(days=1), ago(), ["w"])


def test_a_push_of_a_future_row_is_counted_and_refused_if_strict(feast_project: ConformanceProject) -> None:
    feast_project.write("v.parquet", table_of([9], x=[9.0]))
    feast_project.apply(feast_project.pushed("v"))
    frame = pd.DataFrame({**table_frame([1], NOW + timedelta(hours=1)), "x": [1.0]})
    feast_project.store.push("v_push", frame)
    assert [(item.reason, item.rows, item.verb) for item in read_skipped(ProjectState(feast_project.state))] == [
        ("event time lies more than 10 s in the future", 1, "push")
    ]
    be_strict(feast_project)
    with pytest.raises(GateError, match="event time lies more than 10 s in the future"):
        feast_project.store.push("v_push", frame)


CONVERTED: dict[str, tuple[FeastType, pa.Array, list[Any]]] = {
    "decimals in Float64": (
        Float64,
        pa.array([Decimal("0.10"), Decimal("12345678901234567890.12"), None], pa.decimal128(24, 2)),
        [0.1, 12345678901234567890.12, None],
    ),
    "integers in Float64": (Float64, pa.array(LONG), [float(2**53 + 1), -(2.0**63), None]),
    "unsigned in Float64": (Float64, pa.array([2**64 - 1, 1, None], pa.uint64()), [2.0**64, 1.0, None]),
    "bools in Int64": (Int64, BOOLS, [1, 0, None]),
    "bools in Float32": (Float32, BOOLS, [1.0, 0.0, None]),
    "bools in String": (String, BOOLS, ["True", "False", None]),
    "integers in String": (String, pa.array(LONG), ["9007199254740993", "-9223372036854775808", None]),
    "floats in Int64": (Int64, pa.array([3.0, -4.0, None]), [3, -4, None]),
    "float64 in Float32": (Float32, pa.array([0.1, -2.5, None]), [float(np.float32(0.1)), -2.5, None]),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_other_types_become_the_declared_one_on_both_sides(feast_project: ConformanceProject, name: str) -> None:
    dtype, values, expected = CONVERTED[name]
    feast_project.write("v.parquet", table_of([1, 2, 3], x=values))
    feast_project.apply(feast_project.pushed("v", {"x": dtype}))
    feast_project.store.materialize(ago(days=1), ago())
    assert value_of(feast_project, 1, 2, 3) == expected
    assert feast_project.offline(["v:x"], asked(1, 2, 3))["x"].to_pylist() == expected
    assert reasons(feast_project) == {}


@pytest.mark.parametrize(
    ("dtype", "values"),
    [(String, pa.array([0.5])), (Int64, pa.array(["1"])), (Float64, pa.array([True])), (Int64, pa.array([[1]]))],
    ids=["floats in String", "text in Int64", "bools in Float64", "lists in Int64"],
)
def test_types_that_would_change_a_value_are_refused_by_apply(
    feast_project: ConformanceProject, dtype: FeastType, values: pa.Array
) -> None:
    feast_project.write("v.parquet", table_of([1], x=values))
    with pytest.raises(SourceError, match="column 'x': does not fit the declared type"):
        feast_project.apply(feast_project.pushed("v", {"x": dtype}))


def test_a_null_in_a_list(feast_project: ConformanceProject) -> None:
    lists: dict[str, tuple[Any, list[Any]]] = {
        "d": (Float64, [[1.0, None]]),
        "f": (Float32, [[None, 0.5]]),
        "t": (UnixTimestamp, [[ago(), None]]),
        "n": (Array(Float64), [[[None, 1.0], []]]),
    }
    for name, (base, values) in lists.items():
        feast_project.write(f"{name}.parquet", table_of([1], x=pa.array(values)))
        feast_project.apply(feast_project.pushed(name, {"x": Array(base)}))
        feast_project.store.push(
            f"{name}_push", pd.DataFrame({**table_frame([2]), "x": pd.Series(values, dtype=object)})
        )
    feast_project.store.materialize(ago(days=1), ago())
    expected = {"d": "[1.0, nan]", "f": "[nan, 0.5]", "t": str([ago(), None]), "n": "[[nan, 1.0], []]"}
    for name, text in expected.items():
        online = feast_project.online([f"{name}:x"], users_of(1, 2))["x"]
        (offline,) = feast_project.offline([f"{name}:x"], asked(1))["x"].to_pylist()
        assert [str(online[0]), str(online[1])] == [text, text]
        assert str(offline).replace("zoneinfo.ZoneInfo(key='UTC')", "datetime.timezone.utc") == text


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (Array(Int64), [1, None]),
        (Array(String), ["a", None]),
        (Array(Array(Float64)), [[1.0], None]),
    ],
    ids=["integers", "texts", "lists"],
)
def test_a_null_in_a_list_that_has_no_value_for_it_is_refused(
    feast_project: ConformanceProject, dtype: FeastType, value: list[Any]
) -> None:
    feast_project.write("v.parquet", table_of([1], x=pa.array([value])))
    feast_project.apply(feast_project.pushed("v", {"x": dtype}))
    refused = "a list contains a null, which Feast cannot store"
    with pytest.raises(SourceError, match=refused):
        feast_project.store.materialize(ago(days=1), ago())
    with pytest.raises(SourceError, match=refused):
        feast_project.offline(["v:x"], asked(1))
    with pytest.raises(SourceError, match=refused):
        feast_project.store.push("v_push", pd.DataFrame({**table_frame([1]), "x": pd.Series([value], dtype=object)}))
    assert value_of(feast_project, 1) == [None]


def test_a_source_that_is_not_there_yet_is_warned_of(
    feast_project: ConformanceProject, capsys: pytest.CaptureFixture[str]
) -> None:
    view = feast_project.pushed("v")
    provider: Any = feast_project.store._get_provider()
    provider.validate_data_source(feast_project.store.config, view.batch_source)
    feast_project.apply(view)
    said = capsys.readouterr()
    assert "source_missing" in said.out + said.err
    with pytest.raises(SourceError, match="has no file"):
        feast_project.store.materialize(ago(days=1), ago())
    feast_project.write("v.parquet", table_of([1], x=[1.0]))
    feast_project.store.materialize(ago(days=1), ago())
    assert value_of(feast_project, 1) == [1.0]


SENTENCES = {
    "is in an object store, which cannot be read .got 's3://bucket/v.parquet'": FileSource(
        path="s3://bucket/v.parquet", timestamp_field="event_time"
    ),
    "is a Delta table, which cannot be read": FileSource(
        path="v.delta", timestamp_field="event_time", file_format=DeltaFormat()
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_apply_says_what_cannot_be_read(feast_project: ConformanceProject, sentence: str) -> None:
    provider: Any = feast_project.store._get_provider()
    with pytest.raises(SourceError, match=sentence):
        provider.validate_data_source(feast_project.store.config, SENTENCES[sentence])


def test_a_request_without_rows(feast_project: ConformanceProject) -> None:
    feast_project.write("v.parquet", table_of([1], x=[1.0]))
    feast_project.apply(feast_project.pushed("v"))
    with pytest.raises(RequestError, match=r"entity_rows: has no row. Fix: give at least one"):
        feast_project.online(["v:x"], [])
    assert feast_project.online(["v:x"], {"user_id": []}) == {"user_id": [], "x": []}
