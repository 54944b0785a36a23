"""Windowed training rows from 2, 8 and 32 million events: does the time grow with them, does the memory stay?"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import window_joins as entrants
from benchmarks.contestant import Contestant, race
from benchmarks.meter import Report
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.window_events import ALL, WINDOWS, Events

_STEPS = (1, 4, 16)


def run() -> list[Result]:
    """Compute 200 k rows from ever more events of the same keys."""
    reports = {step: _report(step) for step in _STEPS}
    first = reports[_STEPS[0]]
    results = []
    for step, report in reports.items():
        name = f"window_growth: {step * scaled(2_000_000):,} events"
        seconds, memory = report.seconds(), report.peak_bytes() / 1e6
        per_event = seconds / first.seconds() / step
        results += [
            Result(
                name=f"{name}, time",
                value=seconds,
                unit="s",
                against="time an event of the smallest",
                ratio=per_event,
                target=1.2,
            ),
            Result(
                name=f"{name}, memory",
                value=memory,
                unit="MB",
                against="memory of the smallest",
                ratio=report.peak_bytes() / first.peak_bytes(),
            ),
        ]
    return results


def _report(step: int) -> Report:
    events = Events(n=step * scaled(2_000_000), n_keys=scaled(20_000, least=50))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events.write(folder)
        pq.write_table(events.asked(scaled(200_000)), folder / "asked.parquet")
        arguments = {"folder": str(folder), "functions": [str(item) for item in ALL], "windows": list(WINDOWS)}
        done = race([Contestant(name="log", entrant=entrants.skewless_log, arguments=arguments)], 1)
    return done.reports["log"][0]
