"""Windowed views and their event sources in a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from skewless.contract.columns import Column, Transform, digest, find_column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_name
from skewless.contract.plain_record import PlainRecord

EVENT_GROUP = "event"
EventFormat = Literal["json", "json-schema", "avro", "protobuf"]


class Function(StrEnum):
    """The aggregate function of a window (SEMANTICS 3.3)."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    VAR = "var"
    STD = "std"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"
    COUNT_DISTINCT = "count_distinct"


SUMMED = frozenset({Function.SUM, Function.MEAN, Function.VAR, Function.STD})
SQUARED = frozenset({Function.VAR, Function.STD})


@dataclass(frozen=True, kw_only=True)
class EventSource(PlainRecord):
    """A stream of events with declared columns.

    Args:
        kind: ``push``: events arrive over HTTP or in a Redis stream; else the name of a connector: ``kafka``.
        topic, servers: name of the stream and where it is, as Kafka topic and servers; empty for push.
        format: of a message; all but ``json`` begin with the id of their schema in the schema registry.
        subject: of the topic's schemas in the registry; empty: ``TOPIC-value``.
        message: full name of the Protobuf message; empty: the first of its file.
        event_column: column with the event time.
        columns: the other columns of an event, with types; all may be null.
        id_column: column with a unique event id, or None: the position in the stream identifies an event.
        scales: per summed number column, the number of decimal digits in sums (SEMANTICS 3.3).
        history: Parquet or CSV files of events before the stream (``skewless import``), relative to the repo; or None.
        created_column: column of the history with the time at which the row was written, or None.
        delay_us: declared time from an event to its known time.
        dedupe_us: how long an ``event_id`` is remembered to detect duplicates.
        earliest_us, latest_us: events with times outside are rejected.
    """

    name: str
    kind: str
    event_column: str
    columns: tuple[Column, ...]
    topic: str = ""
    servers: str = ""
    format: EventFormat = "json"
    subject: str = ""
    message: str = ""
    id_column: str | None = None
    scales: Mapping[str, int] = field(default_factory=dict)
    history: str | None = None
    created_column: str | None = None
    delay_us: int = 0
    dedupe_us: int = 0
    earliest_us: int
    latest_us: int

    def __post_init__(self) -> None:
        """Check the name: it becomes part of paths and keys."""
        check_name("event source", self.name)

    def column(self, name: str) -> Column:
        """Return a column by its name."""
        return find_column(self.columns, name, f"event source {self.name!r}", "column")

    @property
    def registry_subject(self) -> str:
        """Return the subject of its schemas in the registry."""
        return self.subject or f"{self.topic}-value"

    def same_stream(self, other: EventSource) -> bool:
        """Say whether another definition reads the same stream."""
        return (self.kind, self.topic, self.servers) == (other.kind, other.topic, other.servers)

    @cached_property
    def readable(self) -> tuple[Column, ...]:
        """Return the columns that a view may read: the columns of an event, and its event time."""
        return (*self.columns, Column(name=self.event_column, dtype=DType.TIMESTAMP))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values.

        Some defaults are omitted, and so are those of later fields, so that unchanged definitions keep their hash.
        """
        defaults = {"format": "json", "subject": "", "message": ""}
        return {name: value for name, value in asdict(self).items() if value != defaults.get(name)}


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One feature of a windowed view.

    Args:
        column: an event column or an output of the view's transform.
        window_us, hop_us: length of the window and of its steps, microseconds.
        place: of ``first`` and ``last``, the value's place in their sequence, from 1 (the first or last value itself).
    """

    name: str
    column: str
    function: Function
    window_us: int
    hop_us: int
    place: int = 1

    @property
    def text(self) -> str:
        """Return what the feature is of its column.

        >>> Aggregate(name="f", column="x", function=Function.LAST, window_us=60, hop_us=5, place=2).text
        'last of x (place 2)'
        """
        return f"{self.function} of {self.column}" + (f" (place {self.place})" if self.place > 1 else "")


@dataclass(frozen=True, kw_only=True)
class WindowView(PlainRecord):
    """Aggregates over the events of one source, for each entity, in windows that end now (SEMANTICS 3).

    Args:
        keys: entity keys, columns of the source.
        source: name of the event source.
        event_column: column with the event time; aggregates, filter and transform may read it like any other column.
        inputs: event columns that aggregates, filter or transform read, except keys.
        transform: derives columns from an event, or None.
        filter: a boolean column, derived or not: events where it is not true do not count; or None.
        scales: per summed column, the number of decimal digits in sums.
        sketch_size: number of hashes that ``count_distinct`` keeps for each tile; smaller counts are exact.
        freshness_us: features with an older watermark are stale; 0: no limit.
        max_age_us: with an older watermark the view is UNAVAILABLE; 0: no limit.
    """

    name: str
    keys: tuple[Column, ...]
    source: str
    event_column: str
    inputs: tuple[Column, ...]
    aggregates: tuple[Aggregate, ...]
    transform: Transform | None = None
    filter: str | None = None
    scales: Mapping[str, int] = field(default_factory=dict)
    sketch_size: int = 256
    freshness_us: int = 0
    max_age_us: int = 0

    def __post_init__(self) -> None:
        """Check the name: it becomes part of paths and keys."""
        check_name("windowed view", self.name)

    @property
    def ttl_us(self) -> int:
        """Return 0: events expire with their window, so features need no time to live."""
        return 0

    @cached_property
    def features(self) -> tuple[Column, ...]:
        """Return the typed features: all are float64."""
        return tuple(Column(name=item.name, dtype=DType.FLOAT64) for item in self.aggregates)

    @cached_property
    def logged_inputs(self) -> tuple[Column, ...]:
        """Return the inputs that are columns of the log: all but the event time, which each row has anyway."""
        return tuple(column for column in self.inputs if column.name != self.event_column)

    @cached_property
    def hash(self) -> str:
        """Return the hash of all that determines the states: part of the online key."""
        data = self.as_dict()
        # They decide how old a value may be, not the value: a change must not orphan the states.
        for name in ("freshness_us", "max_age_us"):
            del data[name]
        return digest(data)

    @cached_property
    def hops(self) -> tuple[int, ...]:
        """Return the distinct hops, growing: one level of tiles each, from level 1."""
        return tuple(sorted({item.hop_us for item in self.aggregates}))

    @cached_property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Return the distinct windows as (length, hop), growing."""
        return tuple(sorted({(item.window_us, item.hop_us) for item in self.aggregates}))

    @cached_property
    def structure(self) -> tuple[object, ...]:
        """Return all that determines the records of states and their features; not the names of keys and columns."""
        columns = list(dict.fromkeys(item.column for item in self.aggregates))
        items = [replace(item, name="", column=str(columns.index(item.column))) for item in self.aggregates]
        return (*items, *(self.scales.get(column, 0) for column in columns), self.sketch_size)

    def level(self, hop_us: int) -> int:
        """Return the level of the tiles of a hop."""
        return self.hops.index(hop_us) + 1

    def feature(self, name: str) -> Column:
        """Return a feature by its name."""
        return find_column(self.features, name, f"view {self.name!r}", "feature")

    def dtype(self, column: str) -> DType:
        """Return the type of a column that an aggregate or the filter reads."""
        for item in (*(self.transform.outputs if self.transform else ()), *self.inputs, *self.keys):
            if item.name == column:
                return item.dtype
        raise DefinitionError(
            f"view {self.name!r}", "reads an unknown column", value=column, fix="declare the column in the event source"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the default place is omitted."""
        data = asdict(self)
        for item in data["aggregates"]:
            if item["place"] == 1:
                del item["place"]
        return data
