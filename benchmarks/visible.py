"""From an event sent to a prediction that sees it, at 2,000 events a second."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import visibility as entrants
from benchmarks.contestant import Contestant, race
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_server

LIMITS_MS = {"p50": 30, "p99": 80}


def run() -> list[Result]:
    """Send for 30 seconds, among them marked events that a reader waits for."""
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        arguments = {"folder": str(Path(name)), "url": url, "seconds": max(scaled(30, least=2), 2)}
        done = race([Contestant(name="ours", entrant=entrants.sent_and_seen, arguments=arguments)], rounds(3))
    rate = done.fact("ours", "rate")
    return [
        Result(
            name=f"visible: sent to seen by a reader, {rate:,.0f} events/s, {quantile}",
            value=done.fact("ours", quantile),
            unit="ms",
            against=f"{limit_ms} ms",
            ratio=done.fact("ours", quantile) / limit_ms,
            target=1,
        )
        for quantile, limit_ms in LIMITS_MS.items()
    ]
