"""Departures and arrivals as events: those of the past as a table, those of the test weeks as a stream sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from flights_times import delayed

HOUR = pd.Timedelta(hours=1)
KEYS = ["carrier", "origin", "dest", "tailnum"]
LATE_SHARE, TWICE_SHARE = 0.02, 0.01
_LEAST_LATE, _MOST_LATE = 5.0, 360.0  # minutes
_SEED = 2013


@dataclass(frozen=True, kw_only=True)
class EventKind:
    """One kind of event.

    Args:
        delay: the column with the minutes of delay.
        moment: the column that says when it happened.
    """

    delay: str
    moment: str


@dataclass(frozen=True, kw_only=True)
class StreamMessages:
    """What a stream is sent: ``at``, ``key`` and ``payload``, in the order of ``at``; and what is odd about it.

    Args:
        late: how many come minutes to hours after they happened.
        twice: how many are sent a second time.
        broken: how many cannot be read.
    """

    table: pd.DataFrame
    late: int
    twice: int
    broken: int


KINDS = {
    "departures": EventKind(delay="dep_delay", moment="departed_at"),
    "arrivals": EventKind(delay="arr_delay", moment="landed_at"),
}


def event_tables(flights: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the events of each kind, sorted by their time; a flight without the value is none.

    Args:
        flights: the table of ``flights_table``; its row numbers are the ids of the events.
    """
    departed = delayed(flights["sched_dep"], flights["dep_delay"])
    moments = {"departures": departed, "arrivals": flights["known_at"]}
    return {name: _events(flights, kind, moments[name]) for name, kind in KINDS.items()}


def live_start(flights: pd.DataFrame, horizon: pd.Timedelta, test: pd.Timedelta) -> pd.Timestamp:
    """Return where the demo's clock begins: an hour before the hour of the first prediction of the test period."""
    first: pd.Timestamp = flights["sched_dep"].max() - horizon - test
    return first.floor("h") - HOUR


def messages(name: str, events: pd.DataFrame, seed: int = _SEED) -> StreamMessages:
    """Return events as a stream is sent them: a few late, a few twice, a few that cannot be read."""
    kind, n = KINDS[name], len(events)
    chance = np.random.default_rng([seed, len(name)])
    late = chance.random(n) < LATE_SHARE
    minutes = np.exp(chance.uniform(np.log(_LEAST_LATE), np.log(_MOST_LATE), n)).round()
    at = events[kind.moment] + pd.to_timedelta(np.where(late, minutes, 0.0), unit="m")
    sent = pd.DataFrame({"at": at, "key": events["tailnum"].fillna(""), "payload": _payloads(kind, events)})
    again = sent[chance.random(n) < TWICE_SHARE]
    pause = pd.to_timedelta(chance.integers(0, 90, len(again)), unit="m")
    broken = _broken(kind, sent, events)
    table = pd.concat([sent, again.assign(at=again["at"] + pause), broken]).sort_values("at", kind="stable")
    return StreamMessages(
        table=table.reset_index(drop=True), late=int(late.sum()), twice=len(again), broken=len(broken)
    )


def _events(flights: pd.DataFrame, kind: EventKind, moment: pd.Series[pd.Timestamp]) -> pd.DataFrame:
    table = flights[[*KEYS, kind.delay]].assign(event_id=flights.index.to_numpy(np.int64), **{kind.moment: moment})
    known = table.dropna(subset=[kind.delay, kind.moment])
    return known.sort_values([kind.moment, "event_id"], ignore_index=True)


def _payloads(kind: EventKind, events: pd.DataFrame) -> list[bytes]:
    moments = events[kind.moment].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    # Through Arrow: what is missing is null there, whatever its type.
    rows = pa.Table.from_pandas(events.assign(**{kind.moment: moments}), preserve_index=False)
    return [_json(row) for row in rows.to_pylist()]


def _broken(kind: EventKind, sent: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return four messages that nobody can count: cut off, without a time, of another century, no number of minutes."""
    places = np.arange(1, 5) * len(events) // 5 if len(events) else np.arange(0)
    rows = [json.loads(payload) for payload in sent["payload"].iloc[places]]
    changes: list[Mapping[str, object]] = [
        {},
        {kind.moment: None},
        {kind.moment: "2199-01-01T00:00:00Z"},
        {kind.delay: "much"},
    ]
    payloads = [_json({**row, **change}) for row, change in zip(rows, changes, strict=False)]
    payloads[:1] = [payload[: len(payload) // 2] for payload in payloads[:1]]
    return sent.iloc[places].assign(payload=payloads)


def _json(row: Mapping[str, object]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()
