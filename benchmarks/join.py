"""The point-in-time join against Feast's DuckDB store and against DuckDB by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import joins
from benchmarks.contestant import Contestant, Quantity, Race, race
from benchmarks.histories import ASKED, DAY_US, History, pieces, write_log
from benchmarks.meter import Report
from benchmarks.repo import ViewTable
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.stored import plan_of

LOG, KNOWN, PLUGIN, FEAST, ASOF, UNION = "log", "log at known time", "plugin", "feast", "ASOF", "UNION"
_MB = 1e6


def run() -> list[Result]:
    """Join 200 k entity rows with 1,000 rows a key, and 1 M with two wide views and a ttl."""
    keys = scaled(2_000, least=20)
    deep = History(
        tables=[ViewTable(name="deep", n_entities=keys, per_entity=1_000, n_features=10)], entity_rows=100 * keys
    )
    keys = scaled(100_000, least=20)
    wide = History(
        tables=[
            ViewTable(name="wide", n_entities=keys, per_entity=20, n_features=30),
            ViewTable(name="slim", n_entities=keys, per_entity=20, n_features=10),
        ],
        entity_rows=10 * keys,
        ttl_days=7,
    )
    return [*_compared(deep, time=0.05, memory=0.1), *_compared(wide, time=1 / 12, memory=0.25)]


def _compared(history: History, *, time: float, memory: float) -> list[Result]:
    """Return the results of one history.

    Args:
        time, memory: the share of Feast's to stay within.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, asked = folder / "data", str(folder / "data" / ASKED)
        history.write(data)
        own = history.repo(folder / "own", data, "skewless")
        rows = {table.name: pieces(data, table) for table in history.tables}
        write_log(plan_of(own).views, rows, own / ".skewless")
        plugin = history.repo(folder / "plugin", data, "plugin")
        feast = history.repo(folder / "feast", data, "feast")
        by_hand = {
            "tables": {table.name: list(table.features) for table in history.tables},
            "data": str(data),
            "asked": asked,
            "ttl_us": history.ttl_days * DAY_US,
        }

        def repo(folder: Path) -> dict[str, str]:
            return {"repo": str(folder), "asked": asked}

        done = race(
            [
                Contestant(name=LOG, entrant=joins.skewless_log, arguments=repo(own)),
                Contestant(name=KNOWN, entrant=joins.skewless_log, arguments={**repo(own), "mode": "knowledge"}),
                Contestant(name=PLUGIN, entrant=joins.feast_store, arguments=repo(plugin)),
                Contestant(name=ASOF, entrant=joins.by_asof, arguments=by_hand),
                Contestant(name=UNION, entrant=joins.by_union, arguments=by_hand),
                Contestant(name=FEAST, entrant=joins.feast_store, arguments=repo(feast), rounds=1),
            ],
            rounds(5),
        )
    return _results(history, done, time, memory)


def _results(history: History, done: Race, time: float, memory: float) -> list[Result]:
    rows = " + ".join(f"{table.n_entities * table.per_entity:,}" for table in history.tables)
    features = " + ".join(str(table.n_features) for table in history.tables)
    ttl = f", ttl {history.ttl_days} days" if history.ttl_days else ""
    what = f"join: {history.entity_rows:,} x {rows} rows, {features} features{ttl}"

    def result(own: str, peers: tuple[str, ...], of: str, unit: str, quantity: Quantity, target: float) -> Result:
        best = min(peers, key=lambda peer: done.median(peer, quantity))
        text = "Feast's DuckDB store" if best == FEAST else f"{best} by hand"
        return Result(
            name=f"{what}: {own}, {of}",
            value=done.median(own, quantity),
            unit=unit,
            against=f"{text} ({done.median(best, quantity):,.2f} {unit})",
            ratio=done.ratio(own, best, quantity),
            target=target,
        )

    sizes: list[tuple[str, str, Callable[[Report], float]]] = [
        ("time", "s", Report.seconds),
        ("memory", "MB", lambda report: report.peak_bytes() / _MB),
    ]
    hand = [result(own, (ASOF, UNION), *size, 1.3) for own in (LOG, PLUGIN) for size in sizes]
    share = {"time": time, "memory": memory}
    known = Result(
        name=f"{what}: {KNOWN}, CPU",
        value=done.median(KNOWN, Report.cpu_seconds),
        unit="s",
        against=f"{LOG} in event time ({done.median(LOG, Report.cpu_seconds):,.2f} s)",
        ratio=done.ratio(KNOWN, LOG, Report.cpu_seconds),
        target=1.2,
    )
    return [*hand, known] + [result(PLUGIN, (FEAST,), *size, share[size[0]]) for size in sizes]
