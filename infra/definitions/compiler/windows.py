"""Compile Feast stream feature views, with their aggregations, to windowed views."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from feast import Entity, Field, StreamFeatureView
from feast.aggregation import Aggregation
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.types import Float64, PrimitiveFeastType

from skewless.contract.columns import Column, Transform
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.windows.hops import check_hops, default_hop
from skewless.contract.windows.view import EVENT_GROUP, SQUARED, SUMMED, Aggregate, EventSource, Function, WindowView
from skewless.infra.definitions.compiler.event_columns import check_columns_exist
from skewless.infra.definitions.compiler.event_sources import TAG_SCALE, compile_source, declared_scales, default_scales
from skewless.infra.definitions.compiler.services import (
    TAG_DERIVED,
    TAG_INPUTS,
    TAG_WHERE,
    compile_event_transform,
    compile_filter,
)
from skewless.infra.definitions.compiler.views import (
    TAG_FRESHNESS,
    TAG_MAX_AGE,
    check_case,
    check_reserved,
    check_tags,
    compile_key,
    parse_duration_us,
)

TAG_DISTINCT = "skewless.distinct"
VIEW_TAGS = (TAG_WHERE, TAG_INPUTS, TAG_DERIVED, TAG_SCALE, TAG_DISTINCT, TAG_FRESHNESS, TAG_MAX_AGE)

_SKETCH = range(2, 4097)
_SKETCH_DEFAULT = "256"
_FRESHNESS_DEFAULT = "1m"  # a running worker applies events within a second
_MICROSECOND = timedelta(microseconds=1)
ALIASES = {
    "avg": Function.MEAN,
    "nunique": Function.COUNT_DISTINCT,
    "approx_count_distinct": Function.COUNT_DISTINCT,
    "stddev": Function.STD,
    "variance": Function.VAR,
}
LONGEST_DAYS = 400
MOST_HOPS = 15  # the tag of a tile has four bits for its level, and four for its sketch
MOST_PLACES = 32  # of a sequence: each takes 32 bytes of each tile
_SEQUENCE = re.compile("(first|last)_([0-9]{1,9})", re.ASCII)
_FOR_TEXT = frozenset({Function.COUNT, Function.COUNT_DISTINCT})
_SERVED = frozenset(
    {PrimitiveFeastType.FLOAT64, PrimitiveFeastType.FLOAT32, PrimitiveFeastType.INT64, PrimitiveFeastType.INT32}
)


def compile_windows(
    repo: Path, views: Sequence[StreamFeatureView], entities: Mapping[str, Entity]
) -> tuple[dict[str, WindowView], dict[str, EventSource]]:
    """Return the windowed views of stream feature views, and their event sources, by name.

    Raises:
        DefinitionError: a view cannot be computed exactly, or definitions contradict each other.
    """
    windows: dict[str, WindowView] = {}
    sources: dict[str, EventSource] = {}
    for item in views:
        _check_kind(f"windowed view {item.name!r}", item)
        source = compile_source(item, repo)
        if sources.setdefault(source.name, source) != source:
            raise DefinitionError(
                f"event source {source.name!r}", "is defined twice", fix="rename or remove one of them"
            )
        windows[item.name] = _window(item, entities, source)
        if not item.features:
            # Feast would infer them from a file. In place, as Feast does: services and on-demand views share the list.
            item.features.extend(Field(name=column.name, dtype=Float64) for column in windows[item.name].features)
    return windows, sources


def _window(view: StreamFeatureView, entities: Mapping[str, Entity], source: EventSource) -> WindowView:
    owner = f"windowed view {view.name!r}"
    keys = _keys(owner, view, entities, source)
    transform = compile_event_transform(view, source)
    derived = () if transform is None else transform.outputs
    types = {column.name: column.dtype for column in (*source.readable, *derived)}
    aggregates = _aggregates(view, types, [key.name for key in keys])
    _check_ttl(owner, view.ttl, aggregates)
    where = compile_filter(view, types)
    return WindowView(
        name=view.name,
        keys=keys,
        source=source.name,
        event_column=source.event_column,
        inputs=_inputs(source, keys, transform, {*(item.column for item in aggregates), where}),
        aggregates=aggregates,
        transform=transform,
        filter=where,
        scales=_scales(owner, view, source, types, aggregates),
        sketch_size=_sketch_size(owner, view.tags.get(TAG_DISTINCT, _SKETCH_DEFAULT)),
        freshness_us=parse_duration_us(owner, TAG_FRESHNESS, view.tags, _FRESHNESS_DEFAULT),
        max_age_us=parse_duration_us(owner, TAG_MAX_AGE, view.tags),
    )


def _check_kind(owner: str, view: StreamFeatureView) -> None:
    check_reserved(owner, view.name)
    if view.name == EVENT_GROUP:
        raise DefinitionError(owner, "has a reserved name", fix="rename the view")
    if not view.aggregations:
        raise DefinitionError(
            owner,
            "is a StreamFeatureView without aggregations",
            fix="add aggregations, or declare a FeatureView for latest values",
        )
    if not view.online:
        raise DefinitionError(owner, "is not online", value="online=False", fix="remove online=False, or the view")
    check_tags(owner, view.tags, VIEW_TAGS)


def _keys(
    owner: str, view: StreamFeatureView, entities: Mapping[str, Entity], source: EventSource
) -> tuple[Column, ...]:
    if view.entities == [DUMMY_ENTITY_NAME]:
        raise DefinitionError(owner, "has no entity", fix="add at least one entity")
    keys = tuple(compile_key(view, entities, name) for name in view.entities)
    types = {column.name: column.dtype for column in source.columns}
    for key in keys:
        if types.get(key.name) is not key.dtype:
            raise DefinitionError(
                f"{owner} key {key.name!r}",
                f"is not a column of type {key.dtype} of event source {source.name!r}",
                value=str(types.get(key.name, "no such column")),
                fix="declare it among the source's columns with the type of the entity",
            )
    return keys


def _check_ttl(owner: str, ttl: timedelta | None, aggregates: tuple[Aggregate, ...]) -> None:
    # A ttl longer than all windows has no effect: events expire with their window.
    if ttl and ttl // _MICROSECOND < max(item.window_us for item in aggregates):
        raise DefinitionError(
            owner,
            "has a ttl shorter than a window",
            value=str(ttl),
            fix="remove the ttl: events expire with their window",
        )


def _inputs(
    source: EventSource, keys: tuple[Column, ...], transform: Transform | None, read: set[str | None]
) -> tuple[Column, ...]:
    names = read | {ref.name for ref in (() if transform is None else transform.inputs)}
    return tuple(column for column in source.readable if column.name in names and column not in keys)


def _scales(
    owner: str,
    view: StreamFeatureView,
    source: EventSource,
    types: Mapping[str, DType],
    aggregates: tuple[Aggregate, ...],
) -> dict[str, int]:
    summed = dict.fromkeys(item.column for item in aggregates if item.function in SUMMED)
    own = declared_scales(owner, types, view.tags)
    for name in own:
        if name not in summed:
            raise DefinitionError(
                f"{owner} tag '{TAG_SCALE}{name}'", "is for a column that the view does not sum", fix="remove the tag"
            )
    # The view's own tags win over the source's, and those over the defaults of the types.
    scales = default_scales(types) | dict(source.scales) | own
    return {name: scales.get(name, 0) for name in summed}


def _sketch_size(owner: str, text: str) -> int:
    size = int(text) if text.isdecimal() else 0
    if size not in _SKETCH:
        raise DefinitionError(
            f"{owner} tag {TAG_DISTINCT!r}",
            "is not a supported size of the sketch of count_distinct",
            value=text,
            fix=f"use {_SKETCH.start} to {_SKETCH.stop - 1}",
        )
    return size


def _aggregates(view: StreamFeatureView, types: Mapping[str, DType], keys: Sequence[str]) -> tuple[Aggregate, ...]:
    """Return the aggregates of a view, in the order of their declaration, from the types of its columns."""
    owner = f"windowed view {view.name!r}"
    aggregates = tuple(each for item in view.aggregations for each in _compile_aggregation(owner, view, item, types))
    _check_tiles(owner, aggregates)
    names = [item.name for item in aggregates]
    _check_names(owner, names, keys)
    _check_schema(owner, [field for field in view.features if field.name not in keys], names)
    return aggregates


def _compile_aggregation(
    owner: str, view: StreamFeatureView, item: Aggregation, types: Mapping[str, DType]
) -> Iterator[Aggregate]:
    """Yield the features of an aggregation: one, or a feature ``NAME_PLACE`` for each value of a sequence."""
    name = item.resolved_name(item.time_window)
    owner = f"{owner} aggregation {name!r}"
    function, places = _function(owner, item.function)
    if not item.column:
        raise DefinitionError(
            owner, "has no column", fix="add a column; a key counts every event: Aggregation(column=KEY, ...)"
        )
    check_columns_exist(owner, types, [item.column])
    _check_type(owner, item.column, function, types[item.column])
    window_us = _window_length(owner, item.time_window)
    hop_us = _hop(view, item, window_us)
    for place in range(1, (places or 1) + 1):
        yield Aggregate(
            name=f"{name}_{place}" if places else name,
            column=item.column,
            function=function,
            window_us=window_us,
            hop_us=hop_us,
            place=place,
        )


def _function(owner: str, name: str) -> tuple[Function, int | None]:
    """Return the function of a name, and the length of a sequence: ``last_5``; None: a single value."""
    if name in ALIASES:
        return ALIASES[name], None
    if name in list(Function):
        return Function(name), None
    sequence = _SEQUENCE.fullmatch(name)
    if sequence is None:
        names = ", ".join((*Function, *ALIASES))
        raise DefinitionError(
            owner, "has an unknown function", value=name, fix=f"use one of {names}, or first_K or last_K with a number"
        )
    if not 1 <= int(sequence[2]) <= MOST_PLACES:
        raise DefinitionError(owner, "has an unsupported length", value=name, fix=f"use 1 to {MOST_PLACES} values")
    return Function(sequence[1]), int(sequence[2])


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


def _window_length(owner: str, length: timedelta | None) -> int:
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
