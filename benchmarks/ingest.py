"""Events into the accepted log and the states of four windowed views, against Feast's push of the same events."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import ingests as entrants
from benchmarks.contestant import Contestant, race
from benchmarks.meter import Report
from benchmarks.repo import feast_redis
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_kafka, own_server

OWN, STREAM, KAFKA, FEAST = "worker", "worker on Redis Streams", "worker on Kafka", "feast"


def run() -> list[Result]:
    """Take a million events in, on one core, the servers being on the other."""
    n = scaled(1_000_000, least=2_000)
    with tempfile.TemporaryDirectory() as name, own_server() as url, own_server() as other, own_kafka() as kafka:
        folder = Path(name)
        entrants.write_feast_repo(folder / "feast", feast_redis(other))
        common = {"n": n, "url": url}
        streams = {OWN: entrants.memory_stream, STREAM: entrants.redis_stream}
        broker = Contestant(name=KAFKA, entrant=entrants.kafka_stream, arguments={**common, "kafka": kafka})
        done = race(
            [
                *(Contestant(name=name, entrant=entrant, arguments=common) for name, entrant in streams.items()),
                *([broker] if kafka else []),
                Contestant(
                    name=FEAST,
                    entrant=entrants.feast_push,
                    arguments={"repo": str(folder / "feast"), "n": n, "batches": rounds(10), "singles": rounds(40)},
                    rounds=1,
                ),
            ],
            rounds(3),
        )

    def rate(lap: str = "work") -> float:
        return done.median(FEAST, lambda report: 1 / report.seconds(lap))

    def own(name: str) -> float:
        return done.median(name, lambda report: n / report.seconds())

    batch, single = rate(entrants.BATCHES) * entrants.BATCH, rate(entrants.SINGLES)
    what = "ingest: 4 views x 3 windows x 4 functions"
    results = [
        Result(
            name=f"{what}, {name}",
            value=own(name),
            unit="events/s",
            against=f"{text} ({peer:,.0f} events/s)",
            ratio=own(name) / peer,
            target=target if name == OWN else None,
        )
        for name in (OWN, STREAM, *([KAFKA] if kafka else []))
        for text, peer, target in (
            (f"`store.push` of {entrants.BATCH:,} rows", batch, 10),
            ("`store.push` one by one", single, 500),
        )
    ]
    whole = done.median(OWN, Report.seconds)
    shares = {part: done.fact(OWN, part) for part in entrants.PARTS}
    shares["waiting for the server and the disk"] = done.median(OWN, lambda each: each.seconds() - each.cpu_seconds())
    return [*results, *(_share(whole, part, seconds) for part, seconds in shares.items())]


def _share(whole: float, part: str, seconds: float) -> Result:
    return Result(
        name=f"ingest: of the worker's time, {part}",
        value=seconds,
        unit="s",
        against=f"the whole ({whole:.1f} s)",
        ratio=seconds / whole,
    )
