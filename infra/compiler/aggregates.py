"""Feast aggregations to the aggregates of a windowed view."""

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
from skewless.infra.compiler.event_columns import check_known
from skewless.infra.compiler.views import refuse_cases

ALIASES = {
    "avg": Function.MEAN,
    "nunique": Function.COUNT_DISTINCT,
    "approx_count_distinct": Function.COUNT_DISTINCT,
    "stddev": Function.STD,
    "variance": Function.VAR,
}
LONGEST_DAYS = 400
MOST_HOPS = 15  # the tag of a tile has four bits for its level, and so for its sketch
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
        types: of the columns that they may read.

    Raises:
        DefinitionError: one of them cannot be computed exactly.
    """
    owner = f"windowed view {view.name!r}"
    found = tuple(_aggregate(owner, view, item, types) for item in view.aggregations)
    _check_tiles(owner, found)
    names = [item.name for item in found]
    _check_names(owner, names, keys)
    _check_schema(owner, [field for field in view.features if field.name not in keys], names)
    return found


def _aggregate(owner: str, view: StreamFeatureView, item: Aggregation, types: Mapping[str, DType]) -> Aggregate:
    name = item.resolved_name(item.time_window)
    owner = f"{owner} aggregation {name!r}"
    function = _function(owner, item.function)
    if not item.column:
        raise DefinitionError(
            owner, "has no column", fix="name one; a key counts every event: Aggregation(column=KEY, ...)"
        )
    check_known(owner, types, [item.column])
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
        owner, "has a function that is unknown", value=name, fix=f"use one of {', '.join((*Function, *ALIASES))}"
    )


def _check_type(owner: str, column: str, function: Function, dtype: DType) -> None:
    if dtype.is_text and function not in _FOR_TEXT:
        raise DefinitionError(
            owner,
            f"takes the {function} of text",
            value=f"{column} {dtype}",
            fix="use count or count_distinct, or a number column",
        )
    if dtype is DType.TIMESTAMP and function in SQUARED:
        raise DefinitionError(
            owner,
            f"takes the {function} of moments, whose squares are too large to be summed exactly",
            value=f"{column} {dtype}",
            fix="derive a difference of times in the view's transform",
        )


def _window(owner: str, length: timedelta | None) -> int:
    if length is None or length <= timedelta(0):
        raise DefinitionError(
            owner,
            "has no time_window",
            value=None if length is None else str(length),
            fix="give it a length, such as time_window=timedelta(hours=1)",
        )
    if length > timedelta(days=LONGEST_DAYS):
        raise DefinitionError(
            owner,
            f"has a time_window longer than {LONGEST_DAYS} days, which is read tile by tile at each prediction",
            value=str(length),
            fix="shorten it, or compute it in a batch table and declare a FeatureView",
        )
    return length // _MICROSECOND


def _hop(view: StreamFeatureView, item: Aggregation, window_us: int) -> int:
    # Feast fills in the window where no slide_interval is given.
    if item.slide_interval and item.slide_interval != item.time_window:
        return item.slide_interval // _MICROSECOND
    if view.enable_tiling and view.tiling_hop_size:
        return view.tiling_hop_size // _MICROSECOND
    return default_hop(window_us)


def _check_tiles(owner: str, found: tuple[Aggregate, ...]) -> None:
    check_hops(owner, [(item.window_us, item.hop_us) for item in found])
    hops = {item.hop_us for item in found}
    hashed = {item.column for item in found if item.function is Function.COUNT_DISTINCT}
    for what, used in (("hops", hops), ("columns of count_distinct", hashed)):
        if len(used) > MOST_HOPS:
            raise DefinitionError(
                owner,
                f"has more than {MOST_HOPS} different {what}, more than a tile can name",
                value=len(used),
                fix="split the view",
            )


def _check_names(owner: str, names: Sequence[str], keys: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(
                owner, "has two features of one name", value=name, fix="give each Aggregation a name of its own"
            )
        if name.startswith("__"):
            raise DefinitionError(
                f"{owner} feature", "has a reserved name", value=name, fix="do not begin names with two underscores"
            )
        if name in keys:
            raise DefinitionError(owner, "has a feature with the name of a key", value=name, fix="rename the feature")
    refuse_cases(owner, [*keys, *names])


def _check_schema(owner: str, declared: list[Field], names: list[str]) -> None:
    if not declared:
        return
    fields = {field.name: field for field in declared}
    if sorted(field.name for field in declared) != sorted(names):
        odd = sorted(set(fields) ^ set(names)) or ["a feature twice"]
        raise DefinitionError(
            f"{owner} schema",
            "does not list the features that its aggregations make",
            value=", ".join(odd),
            fix=f"list {', '.join(names)}, or nothing but the keys",
        )
    for field in declared:
        if field.dtype not in _SERVED:
            raise DefinitionError(
                f"{owner} feature {field.name!r}",
                "is declared with a type that no aggregate has",
                value=str(field.dtype),
                fix="declare it as Float64: aggregates are served as float64",
            )
