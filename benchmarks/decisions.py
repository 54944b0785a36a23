"""From an event to its decision in a sink, at 2,000 events a second with four windowed views; at saturation; growth."""

from __future__ import annotations

import tempfile

from benchmarks import deciding as entrants
from benchmarks.contestant import Contestant, race
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_server

LIMITS_MS = {"p50": 25, "p99": 80}
ENTITIES, WINDOWS = (1_000, 10_000, 100_000), (1, 4, 16)
# Whole batches of a worker: it lets a smaller one wait.
_EVENTS, _GROWN = 20_000, 10_000
_SECONDS = 8


def run() -> list[Result]:
    """Send at the rate; let a worker take events as fast as it can, and its parts alone; grow both."""
    with own_server() as url:
        return [*_paced(url), *_saturated(url), *_grown(url)]


def _paced(url: str) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"folder": folder, "url": url, "seconds": scaled(_SECONDS, least=1)}
        done = race([Contestant(name="paced", entrant=entrants.sent_and_delivered, arguments=arguments)], rounds(3))
    at = f"at {done.fact('paced', 'rate'):,.0f} events/s, 4 views"
    results = [
        Result(
            name=f"decisions: event {since} to decision read from a Redis stream, {at}, {quantile}",
            value=done.fact("paced", f"{since} {quantile}"),
            unit="ms",
            against=f"{limit_ms} ms",
            ratio=done.fact("paced", f"{since} {quantile}") / limit_ms,
            target=target,
        )
        for since, target in (("accepted", 1), ("sent", None))
        for quantile, limit_ms in LIMITS_MS.items()
    ]
    cpu_us = done.fact("paced", "cpu") * 1e6
    share = f"a core ({1e6 / entrants.RATE:,.0f} us)"
    name = f"decisions: CPU of the worker for an event, {at}"
    return [
        *results,
        Result(name=name, value=cpu_us, unit="us", against=share, ratio=cpu_us * entrants.RATE / 1e6),
    ]


def _saturated(url: str) -> list[Result]:
    n = scaled(_EVENTS, least=500)
    arguments = {"url": url, "n": n, "entities": scaled(ENTITIES[1]), "windows": WINDOWS[1]}
    done = race(
        [
            Contestant(name="both", entrant=entrants.ingest_and_decide, arguments=arguments),
            Contestant(name="ingest", entrant=entrants.ingest_alone, arguments=arguments),
            Contestant(name="predict", entrant=entrants.predict_alone, arguments=arguments),
        ],
        rounds(3),
    )
    both, ingest, predict = (done.median(name) for name in ("both", "ingest", "predict"))
    parts = f"ingest alone ({n / ingest:,.0f}/s), then predict alone ({n / predict:,.0f}/s)"
    return [
        Result(
            name="decisions: accepted, decided and applied at saturation, one core",
            value=n / both,
            unit="events/s",
            against=f"{parts}: {n / (ingest + predict):,.0f}/s",
            ratio=(ingest + predict) / both,
        )
    ]


def _grown(url: str) -> list[Result]:
    n, (few, some, many) = scaled(_GROWN, least=500), map(scaled, ENTITIES)
    steps = [(few, WINDOWS[1]), (some, WINDOWS[1]), (many, WINDOWS[1]), (some, WINDOWS[0]), (some, WINDOWS[2])]
    done = race(
        [
            Contestant(
                name=_name(*step),
                entrant=entrants.ingest_and_decide,
                arguments={"url": url, "n": n, "entities": step[0], "windows": step[1]},
            )
            for step in dict.fromkeys(steps)
        ],
        1,
    )
    rows = [(step, steps[0]) for step in steps[:3]] + [((some, windows), (some, WINDOWS[0])) for windows in WINDOWS]
    return [
        Result(
            name=f"decisions: at saturation, one core, {_name(*step)}",
            value=n / done.median(_name(*step)),
            unit="events/s",
            against=_name(*base),
            ratio=done.ratio(_name(*base), _name(*step)),
        )
        for step, base in dict.fromkeys(rows)
    ]


def _name(entities: int, windows: int) -> str:
    return f"{entities:,} entities in each of 4 views of {windows} x 4 features"
