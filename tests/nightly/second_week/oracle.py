"""The right answers, in plain Python from the words of docs/semantics.md and docs/windows.md; no product code.

Items (events, rows of a table) are kept with two moments of the test's own monotonic clock: from ``sent`` on an item
may count, from ``settled`` on it must. Between the two any set of them may have counted.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations

from tests.nightly.second_week.declared import Aggregate, Kind, Latest, Source, Transform, Value, Window

NEVER = math.inf
SECOND = 1_000_000
HALF_DAY, TWELVE_DAYS = 43_200, 1_036_800
DEFAULT_FLOAT_SCALE = 6
Values = list[float | None]
Present = float | int | str | bool
# With more of them than this for one entity a reply is not judged, but counted.
MOST_IN_FLIGHT = 5


@dataclass(kw_only=True, eq=False)
class Item:
    """An event of a source or a row of a table.

    Args:
        home: name of the source or table.
        ts: event time, microseconds.
        order: decides between equal times: the place in a file, or when it was made.
        created: when a row was written, microseconds.
    """

    home: str
    ts: int
    order: int
    values: dict[str, Value]
    created: int = 0
    sent: float = NEVER
    settled: float = NEVER


@dataclass
class History:
    """All items that were ever sent, by home and key."""

    items: dict[tuple[str, str, Value], list[Item]] = field(default_factory=lambda: defaultdict(list))

    def add(self, item: Item, keys: Iterable[str]) -> None:
        for key in keys:
            self.items[item.home, key, item.values[key]].append(item)

    def known(self, home: str, key: str, value: Value, begin: float, end: float) -> tuple[list[Item], list[Item]]:
        """Return what must and what may have counted for a read between two moments."""
        there = self.items.get((home, key, value), [])
        certain = [item for item in there if item.settled <= begin]
        return certain, [item for item in there if item.settled > begin and item.sent < end]


def possible(certain: Sequence[Item], open_items: Sequence[Item]) -> Iterator[list[Item]]:
    """Return every state that a read may have met, the likeliest first."""
    for n in (len(open_items), *range(len(open_items))):
        for some in combinations(open_items, n):
            yield [*certain, *some]


def accepted(source: Source, values: dict[str, Value]) -> dict[str, Value]:
    """Return an event's values as their columns hold them (docs/windows.md, Columns)."""
    return {name: _typed(values.get(name), kind) for name, kind in source.columns}


def _typed(value: Value, kind: Kind) -> Value:
    if value is None or not kind.startswith("float"):
        return value
    number = float(value)
    if number != number:  # noqa: PLR0124 - NaN is null
        return None
    return float(struct.unpack("f", struct.pack("f", number))[0]) if kind == "float32" else number


def left_edge(t: int, aggregate: Aggregate) -> int:
    """SEMANTICS 3.1, 3.2."""
    window, hop = aggregate.window_s * SECOND, (aggregate.hop_s or default_hop(aggregate.window_s)) * SECOND
    return (t - window) // hop * hop


def default_hop(window_s: int) -> int:
    if window_s < HALF_DAY:
        return 300
    return 3_600 if window_s < TWELVE_DAYS else 86_400


def window_values(view: Window, events: Iterable[Item], t: int) -> Values:
    """Return the features of one entity at t, from its events (SEMANTICS 3.1, 3.3, 3.4)."""
    edge = min(left_edge(t, aggregate) for aggregate in view.aggregates)
    seen = sorted((event for event in events if edge <= event.ts < t), key=lambda event: (event.ts, event.order))
    rows = [(event.ts, columns) for event in seen if _counts(view, columns := _columns(view, event))]
    return [value for aggregate in view.aggregates for value in _features(view, aggregate, rows, t)]


def _columns(view: Window, event: Item) -> dict[str, Value]:
    columns = {**event.values, view.source.time: event.ts}
    if view.number:
        number = columns[view.number]
        columns["big"] = number is not None and float(number) > view.threshold
        columns["net"] = None if number is None else float(number) * view.factor - 1.25
    return columns


def _counts(view: Window, columns: dict[str, Value]) -> bool:
    return not view.where or columns[view.where] is True


def _features(view: Window, item: Aggregate, rows: Sequence[tuple[int, dict[str, Value]]], t: int) -> Values:
    edge = left_edge(t, item)
    values: list[Present] = [
        value for ts, columns in rows if ts >= edge and (value := columns[item.column]) is not None
    ]
    if item.k:
        ordered = values if item.function == "first" else values[::-1]
        numbers: Values = [float(value) + 0.0 for value in ordered[: item.k]]
        return numbers + [None] * (item.k - len(numbers))
    return [_feature(view, item, values)]


def _feature(view: Window, item: Aggregate, values: Sequence[Present]) -> float | None:
    if item.function == "count":
        return float(len(values))
    if item.function == "count_distinct":
        return float(len(set(values)))  # far below the size from which it is an estimate
    if not values:
        return None
    pick: dict[str, Callable[[list[float]], float]] = {
        "first": lambda numbers: numbers[0],
        "last": lambda numbers: numbers[-1],
        "min": min,
        "max": max,
    }
    if item.function in pick:
        return pick[item.function]([float(value) + 0.0 for value in values])
    return _summed(item.function, values, _scale(view, item.column))


def _scale(view: Window, column: str) -> int:
    if column == view.number and view.scale >= 0:
        return view.scale
    declared = dict(view.source.scales)
    if column in declared:
        return declared[column]
    kinds = dict(view.source.columns)
    return DEFAULT_FLOAT_SCALE if column == "net" or kinds.get(column, "bool").startswith("float") else 0


def _summed(function: str, values: Sequence[Present], scale: int) -> float | None:
    """Sums are exact in integers; a feature is one correctly rounded division (SEMANTICS 3.3, 3.4)."""
    unit = 10**scale
    fixed = [round(value * float(unit)) if isinstance(value, float) else int(value) * unit for value in values]
    n, total = len(fixed), sum(fixed)
    if function == "sum":
        return float(Fraction(total, unit))
    if function == "mean":
        return float(Fraction(total, unit * n))
    if n < 2:
        return None
    squares = sum(one * one for one in fixed)
    variance = float(Fraction(n * squares - total * total, n * (n - 1) * unit * unit))
    return math.sqrt(variance) if function == "std" else variance


def latest_values(view: Latest, rows: Iterable[Item], t: int) -> tuple[str, Values]:
    """Return the status of an entity's row at t, and its features (SEMANTICS 2.1, 2.4)."""
    there = [row for row in rows if row.ts <= t]
    if not there:
        return "NOT_FOUND", [None] * len(view.features)
    newest = max(there, key=lambda row: (row.ts, row.created, row.order))
    if view.ttl_s and t - newest.ts > view.ttl_s * SECOND:
        return "EXPIRED", [None] * len(view.features)
    values = [newest.values[column] for _, column in view.features]
    return "PRESENT", [None if value is None else float(value) for value in values]


def transform_value(transform: Transform, x: float | None, at: int, feature: float | None) -> float | None:
    """Return the one output of a transform; NaN is null."""
    x_, feature_ = (math.nan if value is None else value for value in (x, feature))
    results = {
        "ratio": lambda: x_ / (abs(feature_) + transform.number),
        "shift": lambda: feature_ * transform.number + x_,
        "missing": lambda: float(math.isnan(feature_)),
        "age": lambda: (float(at) - feature_) / 1e6,
    }
    value = results[transform.formula]()
    return None if math.isnan(value) else value


def asked_values(x: float | None, at: int) -> Values:
    """Return the outputs of the transform ``asked``, which every service has."""
    return [None if x is None else x * 2.0, float(at // 3_600_000_000 % 24)]


def bits(value: float | None) -> str:
    return "null" if value is None else float(value).hex()
