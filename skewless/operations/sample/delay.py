"""Trains of lines at stations: the tables of the template ``delay``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from skewless.operations.sample.columns import DAY, HOUR, MINUTE, Real, grid, lateness, names, next_midnight, times

_LINES, _STATIONS, _DAYS, _ARRIVALS = 8, 30, 40, 9_000
_HISTORY_END = 2 * HOUR  # windows of an hour are empty all day long, at any hour
_JAM, _JAM_SHARE, _WORKS_SHARE = 8 * HOUR, 0.15, 0.1


def delay_tables(midnight: int) -> dict[str, pa.Table]:
    """Return 40 days of tables by file name, which end some hours before a midnight, microseconds."""
    rng = np.random.default_rng(23)
    start = midnight - _DAYS * DAY
    slowness = rng.gamma(4, 0.3, _LINES)
    arrivals, trips = _arrivals(rng, start, slowness)
    return {"stations.parquet": _stations(rng, start), "arrivals.parquet": arrivals, "trips.parquet": trips}


def _stations(rng: np.random.Generator, start: int) -> pa.Table:
    station, day = grid(_STATIONS, _DAYS)
    return pa.table(
        {
            "station": names("station-{:02d}", station),
            "event_time": times(start + day * DAY),
            "platforms": 1 + station % 6,
            "works": rng.random(len(station)) < _WORKS_SHARE,
        }
    )


def _arrivals(rng: np.random.Generator, start: int, slowness: Real) -> tuple[pa.Table, pa.Table]:
    """Return arrivals as events, and as labels of the trips that they end; delays of a line come in jams of hours."""
    due = np.sort(rng.integers(start + 2 * DAY, start + _DAYS * DAY - _HISTORY_END - HOUR, _ARRIVALS))
    line, station = rng.integers(0, _LINES, _ARRIVALS), rng.integers(0, _STATIONS, _ARRIVALS)
    jams = rng.random((_LINES, _DAYS * DAY // _JAM)) < _JAM_SHARE
    jammed = jams[line, (due - start) // _JAM]
    delay = np.round(rng.gamma(4, slowness[line]) * np.where(jammed, 5.0, 1.0), 1)
    arrived_at = due + (delay * MINUTE).astype(np.int64)
    kept = arrived_at < start + _DAYS * DAY - _HISTORY_END
    shared = {"line": names("line-{:02d}", line), "station": names("station-{:02d}", station)}
    events = pa.table(
        {
            **shared,
            "trip_id": names("t-{:05d}", np.arange(_ARRIVALS)),
            "delay": delay,
            "arrived_at": times(arrived_at),
            "received_at": times(arrived_at + lateness(rng, _ARRIVALS, 0.02, 3 * HOUR)),
        }
    )
    trips = pa.table({**shared, "due": times(due), "delay": delay, "known_at": times(next_midnight(arrived_at, 0))})
    return events.filter(pa.array(kept)).sort_by("arrived_at"), trips.filter(pa.array(kept))
