"""Windowed features by brute force, from the words of SEMANTICS 3.1 and 3.3: Python integers, no numpy, no state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b

from skewless.contract.windows.view import Aggregate, Function, WindowView

Value = float | int | str | bool | None
_WORD = 2**64
_SUM_BITS = {Function.SUM: 62, Function.MEAN: 62, Function.VAR: 46, Function.STD: 46}


@dataclass(frozen=True, kw_only=True)
class Event:
    """One accepted event.

    Args:
        partition: its log partition's hash, signed.
        known: when serving could know it; None: not yet.
        values: of every column that a view reads, derived ones too.
    """

    key: tuple[Value, ...]
    ts: int
    partition: int
    seq: int
    values: dict[str, Value]
    known: int | None = None

    @property
    def position(self) -> tuple[int, int, int]:
        return self.ts, self.partition, self.seq


def counts_by(t: int) -> Callable[[Event], bool]:
    """Return which events count at t in knowledge mode (3.8)."""
    return lambda event: event.known is not None and max(event.known, event.ts + 1) <= t


def features(view: WindowView, events: Iterable[Event], t: int) -> list[float | None]:
    """Return the features of one entity at t, given its events that may count."""
    return features_of_counted(view, [event for event in events if counts(view, event)], t)


def features_of_counted(view: WindowView, events: Iterable[Event], t: int) -> list[float | None]:
    """Return the features of one entity at t, given its events that count."""
    counted = sorted(events, key=lambda event: event.position)
    inside = {window: [event for event in counted if left_edge(t, *window) <= event.ts < t] for window in view.windows}
    return [_feature(view, item, inside[item.window_us, item.hop_us]) for item in view.aggregates]


def counts(view: WindowView, event: Event) -> bool:
    """Say whether an event counts in a view: its filter is true, and each column that is summed fits its sum."""
    if view.filter is not None and event.values[view.filter] is not True:
        return False
    return all(_fits(_value(view, event, item.column), view, item) for item in view.aggregates)


def _fits(value: Value, view: WindowView, item: Aggregate) -> bool:
    bits = _SUM_BITS.get(item.function)
    if bits is None or _is_null(value):
        return True
    scale = view.scales.get(item.column, 0)
    if isinstance(value, float) and math.isinf(value * float(10**scale)):
        return False
    return abs(_fixed(value, scale)) < 1 << bits


def _value(view: WindowView, event: Event, column: str) -> Value:
    return event.ts if column == view.event_column else event.values[column]


def left_edge(t: int, window_us: int, hop_us: int) -> int:
    return math.floor(Fraction(t - window_us, hop_us)) * hop_us


def _feature(view: WindowView, item: Aggregate, inside: Sequence[Event]) -> float | None:
    values = [value for event in inside if not _is_null(value := _value(view, event, item.column))]
    if item.function is Function.COUNT:
        return float(len(values))
    if item.function is Function.COUNT_DISTINCT:
        return _distinct(values, view.sketch_size)
    if item.function in {Function.FIRST, Function.LAST}:
        sequence = values if item.function is Function.FIRST else values[::-1]
        return _number(sequence[item.place - 1]) if item.place <= len(sequence) else None
    if not values:
        return None
    if item.function in {Function.MIN, Function.MAX}:
        return (min if item.function is Function.MIN else max)(map(_number, values))
    return _summed(item.function, [_fixed(value, view.scales.get(item.column, 0)) for value in values], view, item)


def _summed(function: Function, fixed: Sequence[int], view: WindowView, item: Aggregate) -> float | None:
    n, unit = len(fixed), 10 ** view.scales.get(item.column, 0)
    total = sum(fixed)
    if function is Function.SUM:
        return float(Fraction(total, unit))
    if function is Function.MEAN:
        return float(Fraction(total, unit * n))
    if n == 1:
        return None
    variance = float(Fraction(n * sum(one * one for one in fixed) - total * total, n * (n - 1) * unit * unit))
    return math.sqrt(variance) if function is Function.STD else variance


def _is_null(value: Value) -> bool:
    return value is None or bool(value != value)  # noqa: PLR0124 - NaN is null


def _number(value: Value) -> float:
    assert value is not None
    return float(value) + 0.0


def _fixed(value: Value, scale: int) -> int:
    assert isinstance(value, int | float)
    return round(value * float(10**scale)) if isinstance(value, float) else int(value) * 10**scale


def _distinct(values: Sequence[Value], k: int) -> float:
    hashes = sorted({_hash(value) for value in values})
    return float(len(hashes)) if len(hashes) < k else (k - 1) / (float(hashes[k - 1]) / 2.0**64)


def _hash(value: Value) -> int:
    if isinstance(value, str):
        return min(int.from_bytes(blake2b(value.encode(), digest_size=8).digest(), "little"), _WORD - 2)
    return min(_mixed(_bits(value)), _WORD - 2)


def _bits(value: float | None) -> int:
    assert value is not None
    if not isinstance(value, float):
        return int(value) % _WORD
    mantissa, exponent = math.frexp(value)
    # IEEE 754, spelt out: sign, biased exponent, fraction; zero and infinity apart.
    sign = (value < 0) << 63
    if value == 0:
        return 0
    if math.isinf(value):
        return sign | 0x7FF << 52
    if exponent < -1021:
        return sign | int(math.ldexp(abs(value), 1074))
    return sign | (exponent + 1022) << 52 | (int(math.ldexp(abs(mantissa), 53)) - (1 << 52))


def _mixed(bits: int) -> int:
    mixed = (bits + 0x9E3779B97F4A7C15) % _WORD
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % _WORD
    return mixed ^ (mixed >> 31)
