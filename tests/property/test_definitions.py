"""Objects of ``skewless.definitions`` compile to the plan of objects whose tags are written by hand."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from feast import Entity, FeatureView, Field, FileSource, KafkaSource, PushSource, RequestSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.types import Float64, Int64, UnixTimestamp
from feast.value_type import ValueType
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import DefinitionError
from skewless.definitions import (
    ColumnType,
    aggregate,
    event_source,
    feature_view,
    kafka_event_source,
    on_demand_view,
    request_source,
    windowed_view,
)
from skewless.infra.definitions.compiler.services import compile_request, compile_transform
from skewless.infra.definitions.compiler.views import compile_view
from skewless.infra.definitions.compiler.windows import compile_windows

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ENTITY = Entity(name="card", join_keys=["card"], value_type=ValueType.INT64)
ENTITIES = {"card": ENTITY}
HISTORY = FileSource(path="data/events.parquet", timestamp_field="paid_at", created_timestamp_column="written")
NUMBERS = {"amount": "float64", "odd name": "float32", "größe": "int64", "late": "bool", "id": "string"}
TYPES: dict[str, ColumnType] = {"card": "int64", **cast("dict[str, ColumnType]", NUMBERS)}

lengths = st.none() | st.integers(0, 10**13).map(lambda us: timedelta(microseconds=us)) | st.sampled_from([HOUR, DAY])
scales = st.dictionaries(st.sampled_from(["amount", "odd name", "größe"]), st.integers(0, 12))
days = st.dates(date(1971, 1, 1), date(2150, 1, 1))


def double(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {"double": np.asarray(columns["amount"]) * 2, "big": np.asarray(columns["amount"]) > 9}


def tagged(**values: object) -> dict[str, str]:
    """Return tags as a person could write them; times in microseconds."""
    texts = {name: f"{value // timedelta(microseconds=1)}us" for name, value in values.items()
             if isinstance(value, timedelta)}  # fmt: skip
    others = {name: str(value) for name, value in values.items() if value is not None and name not in texts}
    return {f"skewless.{name}": text for name, text in (texts | others).items()}


def scale_texts(digits: Mapping[str, int]) -> dict[str, str]:
    return {f"skewless.scale.{name}": str(number) for name, number in digits.items()}


@given(lengths, lengths, lengths, lengths, st.sampled_from([None, "gone"]))
def test_a_feature_view_is_that_of_its_tags(
    ttl: timedelta | None,
    delay: timedelta | None,
    freshness: timedelta | None,
    max_age: timedelta | None,
    tombstone: str | None,
) -> None:
    shape: dict[str, Any] = {
        "name": "cards", "entities": [ENTITY], "source": HISTORY, "ttl": ttl or timedelta(0),
        "schema": [Field(name="card", dtype=Int64), Field(name="mean", dtype=Float64)],
    }  # fmt: skip
    typed = feature_view(**shape, delay=delay, freshness=freshness, max_age=max_age, tombstone=tombstone)
    by_hand = FeatureView(**shape, tags=tagged(delay=delay, freshness=freshness, max_age=max_age, tombstone=tombstone))
    assert compile_view(typed, ENTITIES) == compile_view(by_hand, ENTITIES)


@given(
    lengths, lengths, st.none() | days, st.integers(1, 10_000), st.sampled_from([None, "id", "card"]), scales, scales,
    st.none() | st.integers(2, 4096), lengths, lengths, st.booleans(), st.booleans(), st.integers(1, 32),
)  # fmt: skip
def test_a_windowed_view_and_its_stream_are_those_of_their_tags(
    dedupe: timedelta | None,
    delay: timedelta | None,
    earliest: date | None,
    span: int,
    event_id: str | None,
    stream_scales: dict[str, int],
    view_scales: dict[str, int],
    distinct: int | None,
    freshness: timedelta | None,
    max_age: timedelta | None,
    derives: bool,  # noqa: FBT001
    kafka: bool,  # noqa: FBT001
    places: int,
) -> None:
    latest = None if earliest is None else earliest + timedelta(days=span)
    typed_source: Any = {"history": HISTORY, "columns": TYPES, "event_id": event_id, "scales": stream_scales,
                         "dedupe": dedupe, "delay": delay, "earliest": earliest, "latest": latest}  # fmt: skip
    columns = "card int64, amount float64, `odd name` float32, größe int64, late bool, id string"
    source_tags = scale_texts(stream_scales) | tagged(
        columns=columns, event_id=event_id, dedupe=dedupe, delay=delay, earliest=earliest, latest=latest
    )
    if kafka:
        place: Any = {"topic": "t", "timestamp_field": "paid_at"}
        stream: Any = kafka_event_source("pay", servers="b:9092", **place, **typed_source)
        stream_by_hand: Any = KafkaSource(
            name="pay", kafka_bootstrap_servers="b:9092", **place, batch_source=HISTORY, tags=source_tags,
            message_format=JsonFormat(schema_json=""),
        )  # fmt: skip
    else:
        stream = event_source("pay", **typed_source)
        stream_by_hand = PushSource(name="pay", batch_source=HISTORY, tags=source_tags)
    columns_summed = ["amount", "odd name", "größe", *(["double"] if derives else [])]
    aggregations = [Aggregation(column=name, function="sum", time_window=HOUR) for name in columns_summed]
    aggregations.append(Aggregation(column="amount", function=f"last_{places}", time_window=HOUR, name="recent"))
    view = windowed_view(
        "now", entities=[ENTITY], source=stream, distinct=distinct, freshness=freshness, max_age=max_age,
        aggregations=[
            *(aggregate("sum", name, HOUR) for name in columns_summed),
            aggregate("last", "amount", HOUR, k=places, name="recent"),
        ],
        scales=view_scales,
        transform=double if derives else None, inputs=["amount"] if derives else None,
        derived={"double": "float64", "big": "bool"} if derives else None, where="big" if derives else "late",
    )  # fmt: skip
    functions = {"inputs": "amount", "derived": "double float64, big bool", "where": "big"}
    tags = tagged(**(functions if derives else {"where": "late"}), distinct=distinct, freshness=freshness,
                  max_age=max_age)  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stream feature views are experimental")
        by_hand = StreamFeatureView(
            name="now", entities=[ENTITY], source=stream_by_hand, timestamp_field="paid_at", aggregations=aggregations,
            mode="python", udf=cast("Any", double) if derives else None, tags=tags | scale_texts(view_scales),
        )  # fmt: skip
    assert compile_windows(Path(), [view], ENTITIES) == compile_windows(Path(), [by_hand], ENTITIES)


def test_a_request_and_its_features_are_those_of_their_tags() -> None:
    schema = [Field(name="amount", dtype=Float64), Field(name="asked_at", dtype=UnixTimestamp)]
    typed = request_source("payment", schema=schema, prediction_time="asked_at")
    by_hand = RequestSource(name="payment", schema=schema, tags={"skewless.prediction_time": "asked_at"})
    outputs = [Field(name="double", dtype=Float64)]
    views = [on_demand_view("doubled", sources=[item], schema=outputs, transform=double) for item in (typed, by_hand)]
    assert compile_transform(views[0]) == compile_transform(views[1])
    assert compile_request(views[:1]) == compile_request(views[1:])


def stream_with(**arguments: Any) -> PushSource:  # noqa: ANN401 - wrong ones too
    return event_source("pay", history=HISTORY, **({"columns": TYPES} | arguments))


def view_with(**arguments: Any) -> StreamFeatureView:  # noqa: ANN401
    aggregations = [aggregate("sum", "amount", HOUR)]
    shape: dict[str, Any] = {"entities": [ENTITY], "source": stream_with(), "aggregations": aggregations}
    return windowed_view("now", **(shape | arguments))


@pytest.mark.parametrize(
    ("make", "arguments", "thing", "value"),
    [
        (stream_with, {"event_id": "no"}, "event source 'pay' argument 'event_id'", "no"),
        (stream_with, {"event_id": "amount"}, "event source 'pay' argument 'event_id'", "amount"),
        (stream_with, {"scales": {"no": 1}}, "event source 'pay' argument 'scales'", "no"),
        (stream_with, {"scales": {"amount": 13}}, "event source 'pay' argument 'scales' column 'amount'", "13"),
        (stream_with, {"dedupe": "1d"}, "event source 'pay' argument 'dedupe'", "1d"),
        (stream_with, {"delay": -HOUR}, "event source 'pay' argument 'delay'", "-1 day, 23:00:00"),
        (stream_with, {"earliest": "2024"}, "event source 'pay' argument 'earliest'", "2024"),
        (stream_with, {"latest": date(1960, 1, 1)}, "event source 'pay' argument 'latest'", None),
        (stream_with, {"columns": {"a": "number"}}, "event source 'pay' argument 'columns' column 'a'", "number"),
        (stream_with, {"columns": {"a,b": "string"}}, "event source 'pay' argument 'columns'", "a,b"),
        (stream_with, {"tags": {"skewless.scale.amount": "1"}}, "event source 'pay' argument 'tags'",
         "skewless.scale.amount"),
        (view_with, {"where": "no"}, "windowed view 'now' argument 'where'", "no"),
        (view_with, {"distinct": 1}, "windowed view 'now' argument 'distinct'", "1"),
        (view_with, {"inputs": "amount", "transform": double}, "windowed view 'now' argument 'inputs'", "amount"),
        (view_with, {"derived": {"x": "bool"}}, "windowed view 'now' argument 'derived'", None),
        (view_with, {"freshness": 5}, "windowed view 'now' argument 'freshness'", 5),
        (view_with, {"scales": {"id": 0}}, "windowed view 'now' argument 'scales' column 'id'", "string"),
    ],
)  # fmt: skip
def test_an_error_names_argument_value_and_fix(make: Any, arguments: dict[str, Any], thing: str, value: object) -> None:  # noqa: ANN401
    with pytest.raises(DefinitionError) as failure:
        make(**arguments)
    assert (failure.value.thing, failure.value.value) == (thing, value)
    assert ("tag" in failure.value.sentence()) == ("tags" in arguments)
    assert failure.value.fix


def test_a_function_without_its_columns_is_refused_by_the_arguments_name() -> None:
    with pytest.raises(DefinitionError, match="set the argument derived"):
        view_with(transform=double)


def test_columns_may_come_from_the_history_once_there_is_one() -> None:
    assert view_with(source=stream_with(columns=None)).name == "now"
