"""From an event to its decision in a sink, at 2,000 events a second with four windowed views; and at saturation."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import deciding as entrants
from benchmarks.contestant import Contestant, race
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_server

LIMITS_MS = {"p50": 25, "p99": 80}
_EVENTS = 60_000


def run() -> list[Result]:
    """Send for 30 seconds; then let a worker take events as fast as it can, with and without decisions."""
    n = scaled(_EVENTS, least=2_000)
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        arguments = {"folder": str(Path(name)), "url": url, "seconds": max(scaled(30, least=3), 3)}
        paced = race([Contestant(name="paced", entrant=entrants.sent_and_delivered, arguments=arguments)], rounds(3))
        parts = race(
            [
                Contestant(name="both", entrant=entrants.ingest_and_decide, arguments={"url": url, "n": n}),
                Contestant(name="ingest", entrant=entrants.ingest_alone, arguments={"url": url, "n": n}),
                Contestant(name="predict", entrant=entrants.predict_alone, arguments={"url": url, "n": n}),
            ],
            rounds(3),
        )
    rate = paced.fact("paced", "rate")
    results = [
        Result(
            name=f"decisions: event to delivered, {rate:,.0f} events/s, {quantile}",
            value=paced.fact("paced", quantile),
            unit="ms",
            against=f"{limit_ms} ms",
            ratio=paced.fact("paced", quantile) / limit_ms,
            target=1,
        )
        for quantile, limit_ms in LIMITS_MS.items()
    ]
    both, ingest, predict = (parts.median(part) for part in ("both", "ingest", "predict"))
    return [
        *results,
        Result(
            name="decisions: accepted, decided and applied at saturation, one core",
            value=n / both,
            unit="events/s",
            against=f"ingest alone ({n / ingest:,.0f}/s) and predict alone ({n / predict:,.0f}/s), one after the other",
            ratio=(ingest + predict) / both,
            target=None,
        ),
    ]
