"""Windowed training rows from an event log against what one writes by hand in DuckDB."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import window_joins as entrants
from benchmarks.contestant import Contestant, Race, race
from benchmarks.meter import Report
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.window_events import ADDED, ALL, WINDOWS, Events

OWN, PREFIX, FRAME, JOIN = "log", "prefix sums", "RANGE frame", "range join"
_MB = 1e6


def run() -> list[Result]:
    """Compute 200 k rows from 2 M events: three windows of what can be taken away again, then of a maximum too."""
    events = Events(n=scaled(2_000_000), n_keys=scaled(20_000, least=50))
    asked = events.n // 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events.write(folder)
        pq.write_table(events.asked(asked), folder / "asked.parquet")
        added = _race(folder, ADDED, {PREFIX: entrants.by_prefix})
        frames = {FRAME: entrants.by_range_frame, JOIN: entrants.by_range_join}
        whole = _race(folder, ALL, frames, few=(FRAME, JOIN))
    what = f"windows: {asked:,} rows x {events.n:,} events, 3 windows x "
    return [
        *_against(what + "(count, sum, mean)", added, PREFIX, "prefix sums + two ASOF joins by hand", 1.3),
        *_against(what + "(count, sum, mean, max)", whole, FRAME, "UNION + RANGE frames by hand", 0.5),
        *_against(what + "(count, sum, mean, max)", whole, JOIN, "range join by hand", None),
    ]


def _race(
    folder: Path, functions: Sequence[str], peers: Mapping[str, Callable[..., str]], few: Sequence[str] = ()
) -> Race:
    arguments = {"folder": str(folder), "functions": [str(item) for item in functions], "windows": list(WINDOWS)}
    contestants = [Contestant(name=OWN, entrant=entrants.skewless_log, arguments=arguments)]
    for name, entrant in peers.items():
        contestants.append(
            Contestant(name=name, entrant=entrant, arguments=arguments, rounds=1 if name in few else None)
        )
    return race(contestants, rounds(5))


def _against(what: str, done: Race, peer: str, text: str, target: float | None) -> list[Result]:
    def memory(report: Report) -> float:
        return report.peak_bytes() / _MB

    return [
        Result(
            name=f"{what}, {of}",
            value=done.median(OWN, quantity),
            unit=unit,
            against=f"{text} ({done.median(peer, quantity):,.2f} {unit})",
            ratio=done.ratio(OWN, peer, quantity),
            target=target if of == "time" else None,
        )
        for of, unit, quantity in (("time", "s", Report.seconds), ("memory", "MB", memory))
    ]
