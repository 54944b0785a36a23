"""Views, event logs and questions for tests of windows: few moments and keys, so that edges and ties are the rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.view import Aggregate, Function, WindowView
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.reads.offline.window_events import LogPartition
from tests.windows.log import LoggedEvent, column_of, expected, write_part
from tests.windows.oracle import Event, Value
from tests.worlds.plans import columns, make_transform

Key = tuple[Value, ...]

PARTITIONS = ("events/t1/0", "history/t1")
WINDOWS = ((20 * SECOND, 5 * SECOND), (60 * SECOND, 10 * SECOND), (30 * SECOND, 10 * SECOND))
NUMBERS = (Function.SUM, Function.MEAN, Function.MIN, Function.MAX, Function.FIRST, Function.LAST)
ASKED = {
    "x": tuple(Function),  # finite floats
    "y": (Function.COUNT, Function.COUNT_DISTINCT, Function.MIN, Function.MAX, Function.FIRST, Function.LAST),
    "n": (*NUMBERS, Function.COUNT_DISTINCT),  # int64 beyond 2^53
    "s": (Function.COUNT, Function.COUNT_DISTINCT),
    "ts": (Function.COUNT, *NUMBERS, Function.COUNT_DISTINCT),  # the event's own time
}
# Further places of the sequences of first and last values; not all, so that a sequence is longer than what is read.
PLACES = {
    ("x", Function.FIRST): (2, 3),
    ("x", Function.LAST): (2, 3, 4),
    ("y", Function.LAST): (2, 3),
    ("n", Function.FIRST): (4,),
    ("ts", Function.LAST): (2, 6),
    ("z", Function.LAST): (3,),
}


def make_window_view(keys: Mapping[str, DType], *, filtered: bool = False) -> WindowView:
    """Return a view of all functions over three windows; filtered, x is derived from an event too."""
    inputs = {"x": DType.FLOAT64, "y": DType.FLOAT64, "n": DType.INT64, "s": DType.STRING, "ts": DType.TIMESTAMP}
    source = (
        "import numpy as np\ndef f(event):\n"
        "    with np.errstate(all='ignore'):\n        double = event['x'] * 2.0\n"
        "    return {'z': double, 'big': event['x'] > 0.5, 'second': event['ts'] // 1e6 % 60}\n"
    )
    derived = make_transform(
        source, ["event.x", "event.ts"], {"z": DType.FLOAT64, "big": DType.BOOL, "second": DType.FLOAT64}
    )
    wanted = {"z": ASKED["x"], "second": (Function.MAX,), **ASKED} if filtered else ASKED
    return WindowView(
        name="v",
        keys=columns(keys),
        source="s",
        event_column="ts",
        inputs=columns(inputs),
        aggregates=tuple(
            Aggregate(
                name=f"{function}_{column}_{window}" + (f"_{place}" if place > 1 else ""),
                column=column,
                function=function,
                window_us=window,
                hop_us=hop,
                place=place,
            )
            for window, hop in WINDOWS
            for column, functions in wanted.items()
            for function in functions
            for place in (1, *PLACES.get((column, function), ()))
        ),
        transform=derived if filtered else None,
        filter="big" if filtered else None,
        scales={"x": 3, "z": 2},
        sketch_size=3,
    )


ONE_KEY = make_window_view({"id": DType.INT64})
TWO_KEYS = make_window_view({"id": DType.INT64, 'in "y"': DType.STRING}, filtered=True)
INTEGERS: st.SearchStrategy[Key] = st.sampled_from([(-1,), (-1,), (-1,), (2**53 + 1,), (2**53,)])
PAIRS: st.SearchStrategy[Key] = st.sampled_from([(-1, "日|{"), (-1, "日|{"), (-1, ""), (0, "日|{")])

# On edges and beside them.
OFFSETS = st.builds(
    lambda step, beside: step * 5 * SECOND + beside,
    st.integers(-4, 16),
    st.sampled_from([0, 0, 0, -1, 1, -1_000, 1_000, 1_500, 2 * SECOND]),
)
BASES = st.sampled_from([0, -SECOND, 1_700_000_000 * SECOND, -62_135_596_800 * SECOND, 253_402_300_000 * SECOND])
FLOATS = st.sampled_from([None, math.nan, 0.0, -0.0, 0.0005, 0.0015, 2.5, -1e6, 1e9 + 0.1]) | st.floats(-1e6, 1e6)
VALUES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "x": FLOATS,
        "y": st.sampled_from([None, math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e300, 1.5]),
        "n": st.sampled_from([None, 2**53 + 1, -(2**53) - 1, 2**62 - 1, 1 - 2**62, 0, 7]),
        "s": st.sampled_from([None, "", "a", "Zürich", "日本", "e\u0301", "é"]),
    }
)
DELAYS = st.sampled_from([None, 0, 1, 2 * SECOND, 30 * SECOND])


@dataclass(frozen=True, kw_only=True)
class WindowCase:
    """A log, and what is asked of it; times count from a base."""

    view: WindowView
    rows: list[list[LoggedEvent]]
    ends: list[list[tuple[int, int, int]]]
    cuts: list[int]
    asks: list[tuple[Key, int]]
    applied: list[list[int]]

    def parts(self, folder: Path, order: BucketOrder | None = None) -> list[LogPartition]:
        return [
            write_part(folder / str(i), self.view, name, self.rows[i], ends=self.ends[i], cut=self.cuts[i], order=order)
            for i, name in enumerate(PARTITIONS)
        ]

    @cached_property
    def events(self) -> list[Event]:
        return [
            event
            for i, name in enumerate(PARTITIONS)
            for event in expected(name, self.rows[i], ends=self.ends[i], cut=self.cuts[i])
        ]

    @property
    def entities(self) -> pa.Table:
        keys = [
            (key.name, column_of([asked[i] for asked, _ in self.asks], key)) for i, key in enumerate(self.view.keys)
        ]
        return pa.table({**dict(keys), "__t": pa.array([t for _, t in self.asks], pa.int64())})


@st.composite
def cases(
    draw: st.DrawFn, view: WindowView, keys: st.SearchStrategy[Key], values: st.SearchStrategy[dict[str, Any]] = VALUES
) -> WindowCase:
    base = draw(BASES)
    any_key = keys | keys | keys | st.just(tuple(None for _ in view.keys))
    row = st.builds(_row, st.just(base), any_key, OFFSETS, values, DELAYS, st.integers(0, 9))
    rows = [draw(st.lists(row, max_size=14)) for _ in PARTITIONS]
    asks = draw(st.lists(st.tuples(any_key, OFFSETS.map(lambda t: base + t)), min_size=1, max_size=8))
    return WindowCase(
        view=view,
        rows=rows,
        ends=[draw(_ends(base, len(part))) for part in rows],
        cuts=[draw(st.integers(0, len(part))) for part in rows],
        asks=asks,
        applied=[[draw(st.integers(-1, len(part))) for part in rows] for _ in asks],
    )


@st.composite
def _ends(draw: st.DrawFn, base: int, n: int) -> list[tuple[int, int, int]]:
    """Return when positions were applied: two ranges and a gap of one."""
    middle = draw(st.integers(0, n))
    first, second = (base + 5 * SECOND * draw(st.integers(0, 20)) for _ in range(2))
    records = [(0, middle - 1, first), (middle + 1, n, second)]
    return records if middle else records[1:]


def _row(base: int, key: Key, offset: int, values: Mapping[str, Value], delay: int | None, luck: int) -> LoggedEvent:
    x = values["x"]
    ts = base + offset
    derived: dict[str, Value] = {
        "z": None if x is None else float(x) * 2.0,
        "big": x is not None and float(x) > 0.5,
        "second": float(ts) // 1e6 % 60,
    }
    return LoggedEvent(
        key=key,
        ts=ts,
        values={**values, **derived},
        recorded=None if delay is None else base + offset + delay,
        rejected=luck == 0,
    )
