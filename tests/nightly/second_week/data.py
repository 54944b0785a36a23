"""What happens in the world of the project: events, facts and labels, and the files that hold them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.nightly.second_week.declared import Source, Value
from tests.nightly.second_week.oracle import History, Item, accepted
from tests.nightly.second_week.project import CLICKS, DAY_S, FACTS, HOUR_S, NOW, SHOPS, USERS

SECOND = 1_000_000
STAMP = pa.timestamp("us", tz="UTC")
TABLE = "facts"
# How often the next event or row of a file has the very same times: the later one in the file wins.
TIED_EVENTS, TIED_ROWS = 0.05, 0.2
KEYS = {"clicks": ("user", "shop"), "visits": ("user",), TABLE: ("user",)}
_ARROW = {
    "string": pa.string(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
}
_FACT_TYPES = {"Float64": pa.float64(), "Int64": pa.int64(), "Bool": pa.bool_(), "UnixTimestamp": STAMP}
Raw = dict[str, Any]


@dataclass
class Happenings:
    """Makes what happens, and keeps all of it for the oracle."""

    random: random.Random
    history: History = field(default_factory=History)
    events: dict[str, list[tuple[Raw, Item]]] = field(default_factory=lambda: {"clicks": [], "visits": []})
    rows: list[Item] = field(default_factory=list)
    _order: count[int] = field(default_factory=lambda: count(1))
    _taken: set[int] = field(default_factory=set)

    def event(self, source: Source, ts: int, **fixed: Value) -> tuple[Raw, Item]:
        """Make one event of a source that nobody has sent yet."""
        pick, number = self.random, next(self._order)
        raw: Raw = {"user": pick.choice(USERS), source.time: ts}
        if source is CLICKS:
            raw |= {
                "shop": pick.choice(SHOPS),
                "amount": pick.choice([None, -0.0, 0.125, 0.005, round(pick.gauss(50, 30), 3), pick.random() * 100]),
                "qty": pick.choice([None, 0, -3, pick.randrange(50)]),
                "flag": pick.choice([None, True, False]),
                "item": pick.choice([None, "", "é", f"i{pick.randrange(9)}"]),
                "click_id": f"c{number}",
            }
        else:
            raw |= {
                "dwell": pick.choice([None, 0.1, pick.random() * 600, round(pick.random() * 9, 2)]),
                "pages": pick.choice([None, 1, pick.randrange(30)]),
                "page": pick.choice([None, "/", f"/p{pick.randrange(7)}"]),
            }
        raw |= fixed
        return raw, self.again(source, raw)

    def again(self, source: Source, raw: Raw) -> Item:
        """Return the item of an event, for the oracle; of one that is sent once more if that counts again."""
        item = Item(home=source.name, ts=raw[source.time], order=next(self._order), values=accepted(source, raw))
        self.history.add(item, KEYS[source.name])
        self.events[source.name].append((raw, item))
        return item

    def moment(self, earliest: int, latest: int) -> int:
        """Return a moment between two at which nothing else happens, to the microsecond."""
        ts = self.random.randrange(earliest, latest)
        while ts in self._taken:
            ts -= 1
        self._taken.add(ts)
        return ts

    def recent(self, source: Source, n: int, now: int) -> list[tuple[Raw, Item]]:
        """Make events of the last minutes, some of them hours or days late."""
        ages = [self.random.choice([60, 300, 3_600, 6 * HOUR_S, 2 * DAY_S]) * SECOND for _ in range(n)]
        return [self.event(source, self.moment(now - age, now - 1_000)) for age in ages]

    def old(self, source: Source, n: int, now: int, days: int = 40) -> list[tuple[Raw, Item]]:
        """Make events of history; some happen at the very same time as the one before them in the file."""
        made: list[tuple[Raw, Item]] = []
        for _ in range(n):
            age = min(self.random.expovariate(1 / (4 * DAY_S)), days * DAY_S)
            ts = self.moment(now - int(age * SECOND) - 3_600 * SECOND, now - 1_000 * SECOND)
            made.append(self.event(source, ts))
            if self.random.random() < TIED_EVENTS:
                made.append(self.event(source, ts, user=made[-1][0]["user"]))
        return made

    def fact(self, user: str, ts: int, created: int) -> Item:
        """Make one row of the table of facts."""
        pick = self.random
        values: dict[str, Value] = {
            "user": user,
            "level": pick.choice([None, 0.1, pick.gauss(0, 5)]),
            "tier": pick.choice([None, pick.randrange(7), 2**40 + 1]),
            "vip": pick.choice([None, True, False]),
            "born": pick.choice([None, NOW - pick.randrange(9 * DAY_S) * SECOND]),
            "score": pick.choice([None, pick.random()]),
        }
        item = Item(home=TABLE, ts=ts, order=next(self._order), values=values, created=created)
        self.history.add(item, KEYS[TABLE])
        self.rows.append(item)
        return item

    def facts(self, n: int, now: int, *, days: float = 2.0) -> list[Item]:
        """Make rows that were written just now; some have the very same times as the one before them."""
        made: list[Item] = []
        for _ in range(n):
            made.append(
                self.fact(self.random.choice(USERS), now - self.random.randrange(int(days * DAY_S)) * SECOND, now)
            )
            if self.random.random() < TIED_ROWS:
                made.append(self.fact(str(made[-1].values["user"]), made[-1].ts, now))
        return made


def write_events(place: Path, source: Source, raws: Sequence[Raw]) -> None:
    """Write a file of history."""
    columns = {name: pa.array([raw.get(name) for raw in raws], _ARROW[kind]) for name, kind in source.columns}
    columns[source.time] = pa.array([raw[source.time] for raw in raws], pa.int64()).cast(STAMP)
    _put(place, columns)


def write_facts(place: Path, rows: Sequence[Item]) -> None:
    """Write a file of the table of facts."""
    columns = {"user": pa.array([row.values["user"] for row in rows])}
    for name, kind in FACTS.items():
        columns[name] = pa.array([row.values[name] for row in rows], _FACT_TYPES[kind])
    columns["event_time"] = pa.array([row.ts for row in rows], pa.int64()).cast(STAMP)
    columns["created"] = pa.array([row.created for row in rows], pa.int64()).cast(STAMP)
    _put(place, columns)


def write_labels(place: Path, chance: random.Random, now: int, n: int = 400) -> None:
    """Write a table of labels that can be learnt from what the caller knows."""
    at = [now - 3 * DAY_S * SECOND + i * (3 * DAY_S * SECOND // n) for i in range(n)]
    x = [chance.random() for _ in at]
    moments = pa.array(at, pa.int64()).cast(STAMP)
    labels = {name: pa.array([float((v > cut) != (chance.random() < 0.1)) for v in x]) for name, cut in _CUTS.items()}
    columns = {
        "user": pa.array([chance.choice(USERS) for _ in at]),
        "shop": pa.array([chance.choice(SHOPS) for _ in at], pa.int64()),
        "x": pa.array(x),
        "at": moments,
        "known": moments,
    }
    _put(place, columns | labels)


_CUTS = {"hit": 0.5, "near": 0.3, "far": 0.7}
LABELS = tuple(_CUTS)


def _put(place: Path, columns: dict[str, pa.Array]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    hidden = place.with_name(f".{place.name}.tmp")
    pq.write_table(pa.table(columns), hidden)
    hidden.replace(place)
