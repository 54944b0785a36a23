"""From an event sent to a prediction that sees it, at 2,000 events a second."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import visibility as entrants
from benchmarks.contestant import Contestant, race
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_kafka, own_server

LIMITS_MS = {"p50": 30, "p99": 80}
REDIS, KAFKA = "Redis Streams", "Kafka"


def run() -> list[Result]:
    """Send for 30 seconds through each stream, among them marked events that a reader waits for."""
    with tempfile.TemporaryDirectory() as name, own_server() as url, own_kafka() as kafka:
        common = {"folder": str(Path(name)), "url": url, "seconds": max(scaled(30, least=2), 2)}
        arguments = {REDIS: common, **({KAFKA: {**common, "kafka": kafka}} if kafka else {})}
        done = race(
            [
                Contestant(name=stream, entrant=entrants.sent_and_seen, arguments=each)
                for stream, each in arguments.items()
            ],
            rounds(3),
        )
    return [
        Result(
            name=f"visible: {stream}, sent to seen by a reader, {done.fact(stream, 'rate'):,.0f} events/s, {quantile}",
            value=done.fact(stream, quantile),
            unit="ms",
            against=f"{limit_ms} ms",
            ratio=done.fact(stream, quantile) / limit_ms,
            target=1 if stream == REDIS else None,
        )
        for stream in arguments
        for quantile, limit_ms in LIMITS_MS.items()
    ]
