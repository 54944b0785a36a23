"""Windowed views over streams of events."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import Literal, cast

from feast import Entity, StreamFeatureView
from feast.aggregation import Aggregation

from skewless.definitions.streams import EventStream, event_column
from skewless.definitions.tag_arguments import (
    ColumnFunction,
    ColumnType,
    all_tags,
    duration_tags,
    named_arguments,
    scale_tags,
    text_tags,
)
from skewless.infra.compiler.event_columns import columns_text, names_text
from skewless.infra.compiler.event_sources import declares_columns
from skewless.infra.compiler.event_transforms import TAG_DERIVED, TAG_INPUTS, TAG_WHERE
from skewless.infra.compiler.views import TAG_FRESHNESS, TAG_MAX_AGE
from skewless.infra.compiler.windows import TAG_DISTINCT, compile_windows

AggregateFunction = Literal["count", "sum", "mean", "var", "std", "min", "max", "first", "last", "count_distinct"]


def aggregate(
    function: AggregateFunction,
    column: str,
    window: timedelta,
    *,
    name: str | None = None,
    hop: timedelta | None = None,
) -> Aggregation:
    """Return a Feast ``Aggregation``: one feature of a windowed view.

    Args:
        function: of the column's values in the window.
        column: of the event, or derived; count a key to count events.
        window: length of the window, which ends at the prediction.
        name: of the feature; None: Feast's, such as ``sum_amount_3600s``.
        hop: step in which the window's beginning moves; None: chosen by the window's length.
    """
    return Aggregation(column=column, function=function, time_window=window, slide_interval=hop, name=name)


def windowed_view(
    name: str,
    *,
    entities: Sequence[Entity],
    source: EventStream,
    aggregations: Sequence[Aggregation],
    transform: ColumnFunction | None = None,
    inputs: Sequence[str] | None = None,
    derived: Mapping[str, ColumnType] | None = None,
    where: str | None = None,
    scales: Mapping[str, int] | None = None,
    distinct: int | None = None,
    freshness: timedelta | None = None,
    max_age: timedelta | None = None,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> StreamFeatureView:
    """Return a Feast ``StreamFeatureView``: aggregates of a stream's events over time windows.

    Args:
        name: of the view.
        entities: whose join keys, columns of the stream, together are its key.
        source: the stream.
        aggregations: its features, see ``aggregate``.
        transform: function of a module that imports numpy only, from columns of events to derived columns.
        inputs: columns that ``transform`` reads; None: all of the stream and the event time.
        derived: name -> type of the columns that ``transform`` returns.
        where: boolean column, derived or not; only events with true count; None: all.
        scales: column -> decimal digits that sums keep; they replace those of the stream.
        distinct: number of values up to which ``count_distinct`` is exact, 2 to 4096; None: 256.
        freshness: age of the watermark from which features are flagged ``stale``; None: 1 minute, 0: never.
        max_age: age of the watermark from which the view is unavailable; None: never.
        description: for people, as ``owner``.
        owner: team or person.
        tags: further tags of your own.

    Raises:
        DefinitionError: an argument is wrong, or the view cannot be computed exactly.
    """
    thing = f"windowed view {name!r}"
    with named_arguments(), _quiet_feast():
        own = _function_tags(thing, inputs, derived, where) | scale_tags(scales)
        own |= duration_tags(thing, {TAG_FRESHNESS: freshness, TAG_MAX_AGE: max_age})
        own |= text_tags({TAG_DISTINCT: None if distinct is None else str(distinct)})
        view = StreamFeatureView(
            name=name,
            entities=list(entities),
            source=source,
            timestamp_field=event_column(source),
            aggregations=list(aggregations),
            mode="python",
            udf=cast("FunctionType | None", transform),
            description=description,
            owner=owner,
            tags=all_tags(thing, tags, own),
        )
        if declares_columns(source):  # else only the compiler, which knows the project's folder, can read them
            compile_windows(Path(), [view], {entity.name: entity for entity in entities})
    return view


@contextmanager
def _quiet_feast() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stream feature views are experimental")
        yield


def _function_tags(
    thing: str, inputs: Sequence[str] | None, derived: Mapping[str, ColumnType] | None, where: str | None
) -> dict[str, str]:
    tags = text_tags({TAG_WHERE: where})
    if inputs is not None:
        tags[TAG_INPUTS] = names_text(f"{thing} tag {TAG_INPUTS!r}", inputs)
    if derived is not None:
        tags[TAG_DERIVED] = columns_text(f"{thing} tag {TAG_DERIVED!r}", derived)
    return tags
