"""The memory of Redis that rows and window states take at most, computed from their layouts, for jemalloc.

Servers with another allocator, such as the private Valkey, take less.
"""

from __future__ import annotations

import math

from skewless.contract.dtypes import DType
from skewless.contract.keys import KeyCodec
from skewless.contract.plan import View
from skewless.contract.row_layout import RowLayout
from skewless.contract.windows.codec import ROLL_RECORDS, TileCodec
from skewless.contract.windows.hops import DAY
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.view import WindowView
from skewless_capacity.measured_costs import KEY

_VALUE_HEADER, _NAME_HEADER = 6, 4  # of strings: length, capacity, type and a final zero
_DIGITS = {DType.INT32: 10, DType.INT64: 19}
_GROWTH = 2  # APPEND allocates twice the size, so that it does not move the string each time


def row_memory(project: str, view: View, text_bytes: int) -> float:
    """Return the bytes of Redis for a row; texts, as keys or features, have ``text_bytes`` each."""
    layout = RowLayout(view.features)
    return key_memory(_name_bytes(project, view, text_bytes), layout.size + text_bytes * len(layout.text))


def state_memory(project: str, view: WindowView, text_bytes: int, *, events_per_day: float, days: float) -> float:
    """Return the bytes of Redis for a state, at most: new events, and the tiles of all windows.

    A mean over the entities is enough: more events enlarge a state by less and less, so hot keys take no more together.

    Args:
        events_per_day: of an entity.
        days: with events.
    """
    state = TileCodec(view).size_of(_count_records(view, events_per_day, days))
    return key_memory(_name_bytes(project, view, text_bytes), _GROWTH * state)


def row_reply(view: View, text_bytes: int) -> float:
    """Return the bytes of Redis' reply for a row: the value, its length and two line ends."""
    layout = RowLayout(view.features)
    return _reply(layout.size + text_bytes * len(layout.text))


def state_reply(view: WindowView, *, events_per_day: float, days: float) -> float:
    """Return the bytes of Redis' reply for a state, at most; see ``state_memory``."""
    return _reply(TileCodec(view).size_of(_count_records(view, events_per_day, days)))


def _reply(value: float) -> float:
    return value + len(f"${value:.0f}") + 2 * len("\r\n")


def key_memory(name: float, value: float) -> float:
    """Return the bytes of Redis for a key whose name and value have so many bytes."""
    return allocated_bytes(name + _NAME_HEADER) + allocated_bytes(value + _VALUE_HEADER) + KEY.value


def allocated_bytes(size: float) -> int:
    """Return the bytes that jemalloc takes for a block: four sizes between two powers of two.

    >>> [allocated_bytes(size) for size in (1, 45, 129, 300, 3_006)]
    [16, 48, 160, 320, 3072]
    """
    least = math.ceil(size)
    step = max(16, 1 << max((least - 1).bit_length() - 3, 0))
    return -(-least // step) * step


def _name_bytes(project: str, view: View | WindowView, text_bytes: int) -> int:
    prefix = KeyCodec(project, view, 1 if isinstance(view, WindowView) else None).prefix
    return len(prefix) + sum(1 + _DIGITS.get(column.dtype, text_bytes) for column in view.keys) + 1


def _count_records(view: WindowView, events_per_day: float, days: float) -> float:
    """Return the records of a mean state at most, for events at random times."""
    layout = StateLayout(view)
    records = min(events_per_day * days, ROLL_RECORDS)
    for hop in view.hops:
        longest = max(length for length, each in view.windows if each == hop)
        events = events_per_day * hop / DAY
        filled = -math.expm1(-events)
        # Each value may be new: a tile has as many hashes as events, in records of as many hashes as words.
        hashes = filled + min(events, view.sketch_size) / (layout.width + len(layout.hashed))
        in_tile = filled * bool(layout.width) + hashes * len(layout.hashed)
        records += (min(longest, days * DAY) / hop + 1) * in_tile
    return records
