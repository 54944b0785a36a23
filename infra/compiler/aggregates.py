"""Compile Feast aggregations to the aggregates of a windowed view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from feast import Field, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import PrimitiveFeastType

from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.windows.hops import check_hops, default_hop
from skewless.contract.windows.view import SQUARED, Aggregate, Function
from skewless.infra.compiler.event_columns import check_columns_exist
from skewless.infra.compiler.views import check_case

ALIASES = {
    "avg": Function.MEAN,
    "nunique": Function.COUNT_DISTINCT,
    "approx_count_distinct": Function.COUNT_DISTINCT,
    "stddev": Function.STD,
    "variance": Function.VAR,
}
LONGEST_DAYS = 400
MOST_HOPS = 15  # the tag of a tile has four bits for its level, and four for its sketch
_FOR_TEXT = frozenset({Function.COUNT, Function.COUNT_DISTINCT})
_SERVED = frozenset(
    {PrimitiveFeastType.FLOAT64, PrimitiveFeastType.FLOAT32, PrimitiveFeastType.INT64, PrimitiveFeastType.INT32}
)
_MICROSECOND = timedelta(microseconds=1)


def compile_aggregates(
    view: StreamFeatureView, types: Mapping[str, DType], keys: Sequence[str]
) -> tuple[Aggregate, ...]:
    """Return the aggregates of a windowed view, in the order of their declaration.

    Args:
        types: types of the columns that aggregates may read.
        keys: names of the entity keys.

    Raises:
        DefinitionError: an aggregate cannot be computed exactly.
    """
    owner = f"windowed view {view.name!r}"
    aggregates = tuple(_compile_aggregate(owner, view, item, types) for item in view.aggregations)
    _check_tiles(owner, aggregates)
    names = [item.name for item in aggregates]
    _check_names(owner, names, keys)
    _check_schema(owner, [field for field in view.features if field.name not in keys], names)
    return aggregates


def _compile_aggregate(owner: str, view: StreamFeatureView, item: Aggregation, types: Mapping[str, DType]) -> Aggregate:
    name = item.resolved_name(item.time_window)
    owner = f"{owner} aggregation {name!r}"
    function = _function(owner, item.function)
    if not item.column:
        raise DefinitionError(
            owner, "has no column", fix="add a column; a key counts every event: Aggregation(column=KEY, ...)"
        )
    check_columns_exist(owner, types, [item.column])
    _check_type(owner, item.column, function, types[item.column])
    window_us = _window(owner, item.time_window)
    return Aggregate(
        name=name, column=item.column, function=function, window_us=window_us, hop_us=_hop(view, item, window_us)
    )


def _function(owner: str, name: str) -> Function:
    if name in ALIASES:
        return ALIASES[name]
    if name in list(Function):
        return Function(name)
    raise DefinitionError(
        owner, "has an unknown function", value=name, fix=f"use one of {', '.join((*Function, *ALIASES))}"
    )


def _check_type(owner: str, column: str, function: Function, dtype: DType) -> None:
    if dtype.is_text and function not in _FOR_TEXT:
        raise DefinitionError(
            owner,
            f"computes {function} of text",
            value=f"{column} {dtype}",
            fix="use count or count_distinct, or a number column",
        )
    if dtype is DType.TIMESTAMP and function in SQUARED:
        raise DefinitionError(
            owner,
            f"computes {function} of times, whose squares are too large for an exact sum",
            value=f"{column} {dtype}",
            fix="derive a time difference in the view's transform",
        )


def _window(owner: str, length: timedelta | None) -> int:
    if length is None or length <= timedelta(0):
        raise DefinitionError(
            owner,
            "has no time_window",
            value=None if length is None else str(length),
            fix="set a length, such as time_window=timedelta(hours=1)",
        )
    if length > timedelta(days=LONGEST_DAYS):
        raise DefinitionError(
            owner,
            f"has a time_window longer than {LONGEST_DAYS} days, whose tiles are too many to read for each prediction",
            value=str(length),
            fix="shorten it, or compute it in a batch table and declare a FeatureView",
        )
    return length // _MICROSECOND


def _hop(view: StreamFeatureView, item: Aggregation, window_us: int) -> int:
    # Feast sets slide_interval to the window if it is not given.
    if item.slide_interval and item.slide_interval != item.time_window:
        return item.slide_interval // _MICROSECOND
    if view.enable_tiling and view.tiling_hop_size:
        return view.tiling_hop_size // _MICROSECOND
    return default_hop(window_us)


def _check_tiles(owner: str, aggregates: tuple[Aggregate, ...]) -> None:
    check_hops(owner, [(item.window_us, item.hop_us) for item in aggregates])
    hops = {item.hop_us for item in aggregates}
    hashed = {item.column for item in aggregates if item.function is Function.COUNT_DISTINCT}
    for kind, values in (("hops", hops), ("columns of count_distinct", hashed)):
        if len(values) > MOST_HOPS:
            raise DefinitionError(
                owner,
                f"has more than {MOST_HOPS} different {kind}",
                value=len(values),
                fix="split the view",
            )


def _check_names(owner: str, names: Sequence[str], keys: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(
                owner, "has two features with one name", value=name, fix="give each Aggregation its own name"
            )
        if name.startswith("__"):
            raise DefinitionError(
                f"{owner} feature", "has a reserved name", value=name, fix="do not begin names with two underscores"
            )
        if name in keys:
            raise DefinitionError(owner, "has a feature with the name of a key", value=name, fix="rename the feature")
    check_case(owner, [*keys, *names])


def _check_schema(owner: str, declared: list[Field], names: list[str]) -> None:
    if not declared:
        return
    fields = {field.name: field for field in declared}
    if sorted(field.name for field in declared) != sorted(names):
        differing = sorted(set(fields) ^ set(names)) or ["a feature twice"]
        raise DefinitionError(
            f"{owner} schema",
            "does not list the features of its aggregations",
            value=", ".join(differing),
            fix=f"list {', '.join(names)}, or only the keys",
        )
    for field in declared:
        if field.dtype not in _SERVED:
            raise DefinitionError(
                f"{owner} feature {field.name!r}",
                "has a type that aggregates cannot have",
                value=str(field.dtype),
                fix="declare it as Float64: all aggregates are float64",
            )
