"""Definitions with types: functions that return plain Feast objects, for ``definitions.py``.

Feast has no fields for some settings of skewless, such as the delay of a source; they are stored in tags. These
functions write the tags from typed arguments, which an editor completes and checks. Each compiles its object at once
with the compiler of ``skewless plan``: a wrong argument is an error on the line that has it. Objects whose tags are
written by hand mean the same.
"""

from __future__ import annotations

from skewless.definitions.streams import (
    AggregateFunction,
    EventStream,
    aggregate,
    event_source,
    kafka_event_source,
    windowed_view,
)
from skewless.definitions.tag_arguments import BatchSource, ColumnFunction, ColumnType
from skewless.definitions.views import feature_view, on_demand_view, request_source

__all__ = [
    "AggregateFunction",
    "BatchSource",
    "ColumnFunction",
    "ColumnType",
    "EventStream",
    "aggregate",
    "event_source",
    "feature_view",
    "kafka_event_source",
    "on_demand_view",
    "request_source",
    "windowed_view",
]
