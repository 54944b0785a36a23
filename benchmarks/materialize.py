"""Materialisation against Feast's, and against bare writes of the same bytes made ready ahead."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import loads
from benchmarks.contestant import Contestant, Quantity, Race, race
from benchmarks.meter import Report
from benchmarks.repo import OURS, ViewTable, applied_repo, feast_redis
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_server
from benchmarks.stored import save_ready

FEATURES = 30
OWN, FEAST = "skewless", "feast"
SET, SCRIPT, SCRIPTS, WIRE_SET, WIRE_SCRIPT = "SET", "script", "script of many", "SET on the wire", "script on the wire"


def run() -> list[Result]:
    """Materialise 200 k entities of 30 features from one Parquet file."""
    table = ViewTable(name="wide", n_entities=scaled(200_000), n_features=FEATURES, text=True)
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        folder = Path(name)
        table.write(folder)
        ours = applied_repo(folder / "ours", [table], folder, OURS)
        theirs = applied_repo(folder / "theirs", [table], folder, feast_redis(url))
        common = {"repo": str(ours), "url": url, "n_entities": table.n_entities}
        Contestant(name=OWN, entrant=loads.skewless, arguments=common).run()
        save_ready(url, folder / "ready.arrow")
        ready = {**common, "ready": str(folder / "ready.arrow")}
        return _results(
            race(
                [
                    Contestant(name=OWN, entrant=loads.skewless, arguments=common),
                    Contestant(name=SET, entrant=loads.plain_set, arguments=ready),
                    Contestant(name=SCRIPT, entrant=loads.plain_script, arguments={**ready, "per_call": 1}),
                    Contestant(
                        name=SCRIPTS, entrant=loads.plain_script, arguments={**ready, "per_call": loads.KEYS_PER_CALL}
                    ),
                    Contestant(name=WIRE_SET, entrant=loads.wire_set, arguments=ready),
                    Contestant(name=WIRE_SCRIPT, entrant=loads.wire_script, arguments=ready),
                    Contestant(name=FEAST, entrant=loads.feast, arguments={**common, "repo": str(theirs)}, rounds=2),
                ],
                rounds(5),
            ),
            table,
        )


def _results(done: Race, table: ViewTable) -> list[Result]:
    what = f"materialize: {table.n_entities:,} entities x {table.n_features} features"
    n = table.n_entities

    def rate(report: Report) -> float:
        return n / report.seconds()

    def against(peer: str, text: str, target: float | None) -> Result:
        return Result(
            name=f"{what}, rate",
            value=done.median(OWN, rate),
            unit="rows/s",
            against=f"{text} ({done.median(peer, rate):,.0f} rows/s)",
            ratio=done.ratio(OWN, peer, rate),
            target=target,
        )

    def small(what_of: str, unit: str, quantity: Quantity, target: float | None) -> Result:
        return Result(
            name=f"{what}, {what_of}",
            value=done.median(OWN, quantity),
            unit=unit,
            against=f"`feast materialize` ({done.median(FEAST, quantity):,.0f} {unit})",
            ratio=done.ratio(OWN, FEAST, quantity),
            target=target,
        )

    return [
        against(FEAST, "`feast materialize` to Redis", 20),
        small("client memory", "MB", lambda report: report.peak_bytes() / 1e6, 0.2),
        small("client memory without imports", "MB", lambda report: report.grown_bytes() / 1e6, None),
        small("bytes per key in Redis", "bytes", lambda report: report.facts["bytes_per_key"], 0.5),
        against(SET, "SET of ready-made bytes, redis-py pipeline", 0.4),
        against(SCRIPT, "the bare compare-and-set script with them, a call per row, redis-py pipeline", 0.8),
        against(SCRIPTS, f"the same, {loads.KEYS_PER_CALL} rows a call", None),
        against(WIRE_SET, "the server's limit: SET commands that lie ready in memory", None),
        against(WIRE_SCRIPT, "the server's limit: script calls that lie ready in memory", None),
    ]
