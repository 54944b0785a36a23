"""Departures and arrivals as events: a table of the history, and stream messages of the test weeks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from skewless_demo.flights.times import delayed

HOUR = pd.Timedelta(hours=1)
KEYS = ["carrier", "origin", "dest", "tailnum"]
SCHEDULE = ["sched_dep", "sched_dep_local", "sched_arr_local", "distance"]
LATE_SHARE, TWICE_SHARE = 0.02, 0.01
_LEAST_LATE, _MOST_LATE = 5.0, 360.0  # minutes
_SEED = 2013


@dataclass(frozen=True, kw_only=True)
class EventKind:
    """One kind of event.

    Args:
        delay: the column with the minutes of delay.
        time: the column of the event time.
        more: further columns of the flight.
    """

    delay: str
    time: str
    more: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class StreamMessages:
    """The messages of a stream: ``at``, ``key`` and ``payload``, in the order of ``at``; counts of irregular ones.

    Args:
        late: messages sent minutes to hours after their event time.
        twice: messages sent a second time.
        broken: messages that cannot be decoded.
        past: events before them, which are imported.
    """

    table: pd.DataFrame
    late: int
    twice: int
    broken: int
    past: int = 0

    @property
    def live(self) -> int:
        """Return the number of messages."""
        return len(self.table)


KINDS = {
    # With the schedule: what a model needs to decide on a departure.
    "departures": EventKind(delay="dep_delay", time="departed_at", more=SCHEDULE),
    "arrivals": EventKind(delay="arr_delay", time="landed_at"),
}


def event_tables(flights: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the events of each kind, sorted by their time; flights without the value have no event.

    Args:
        flights: the table of ``flights_table``; its row numbers are the ids of the events.
    """
    times = {"departures": departure_times(flights), "arrivals": flights["known_at"]}
    return {name: _events(flights, kind, times[name]) for name, kind in KINDS.items()}


def departure_times(flights: pd.DataFrame) -> pd.Series[pd.Timestamp]:
    """Return the actual departures; NaT if the flight was cancelled."""
    return delayed(flights["sched_dep"], flights["dep_delay"])


def departed_flights(flights: pd.DataFrame) -> pd.DataFrame:
    """Return the flights that departed, with ``departed_at``, sorted by it: the label table of decisions on departures.

    Args:
        flights: the table of ``flights_table``.
    """
    columns = [*KEYS, *SCHEDULE, "dep_delay", "late", "known_at"]
    table = flights[columns].assign(departed_at=departure_times(flights)).dropna(subset=["departed_at"])
    return table.sort_values("departed_at", kind="stable", ignore_index=True)


def live_start(flights: pd.DataFrame, horizon: pd.Timedelta, test: pd.Timedelta) -> pd.Timestamp:
    """Return the start of the demo's clock: an hour before the hour of the first prediction of the test period."""
    first: pd.Timestamp = flights["sched_dep"].max() - horizon - test
    return first.floor("h") - HOUR


def messages(name: str, events: pd.DataFrame, seed: int = _SEED) -> StreamMessages:
    """Return events as stream messages: some are late, some are duplicates, some cannot be decoded."""
    kind, n = KINDS[name], len(events)
    rng = np.random.default_rng([seed, len(name)])
    late = rng.random(n) < LATE_SHARE
    minutes = np.exp(rng.uniform(np.log(_LEAST_LATE), np.log(_MOST_LATE), n)).round()
    at = events[kind.time] + pd.to_timedelta(np.where(late, minutes, 0.0), unit="m")
    sent = pd.DataFrame({"at": at, "key": events["tailnum"].fillna(""), "payload": _payloads(events)})
    duplicates = sent[rng.random(n) < TWICE_SHARE]
    pause = pd.to_timedelta(rng.integers(0, 90, len(duplicates)), unit="m")
    broken = _broken(kind, sent, events)
    table = pd.concat([sent, duplicates.assign(at=duplicates["at"] + pause), broken]).sort_values("at", kind="stable")
    return StreamMessages(
        table=table.reset_index(drop=True), late=int(late.sum()), twice=len(duplicates), broken=len(broken)
    )


def _events(flights: pd.DataFrame, kind: EventKind, time: pd.Series[pd.Timestamp]) -> pd.DataFrame:
    table = flights[[*KEYS, *kind.more, kind.delay]].assign(**{kind.time: time})
    table = table.assign(event_id=flights.index.to_numpy(np.int64))
    complete = table.dropna(subset=[kind.delay, kind.time])
    return complete.sort_values([kind.time, "event_id"], ignore_index=True)


def _payloads(events: pd.DataFrame) -> list[bytes]:
    names = [str(name) for name in events.select_dtypes(["datetime", "datetimetz"]).columns]
    times = {name: events[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name in names}
    # Through Arrow, where missing values of all types are null.
    rows = pa.Table.from_pandas(events.assign(**times), preserve_index=False)
    return [_json(row) for row in rows.to_pylist()]


def _broken(kind: EventKind, sent: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return four invalid messages: truncated, without a time, with a time in 2199, and with a text as delay."""
    places = np.arange(1, 5) * len(events) // 5 if len(events) else np.arange(0)
    rows = [json.loads(payload) for payload in sent["payload"].iloc[places]]
    changes: list[Mapping[str, object]] = [
        {},
        {kind.time: None},
        {kind.time: "2199-01-01T00:00:00Z"},
        {kind.delay: "much"},
    ]
    payloads = [_json({**row, **change}) for row, change in zip(rows, changes, strict=False)]
    payloads[:1] = [payload[: len(payload) // 2] for payload in payloads[:1]]
    return sent.iloc[places].assign(payload=payloads)


def _json(row: Mapping[str, object]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()
