"""Online reads in process, to a matrix, against Feast's and against one MGET of the same rows."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import reads
from benchmarks.contestant import Contestant, Race, race
from benchmarks.meter import Report
from benchmarks.programs import run_feast, run_skewless
from benchmarks.repo import ViewTable, applied_repo, feast_redis
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_server

OWN, FEAST = "skewless", "feast"
_FASTER = {1: 8, 100: 100, 500: 100}


def tables(n_entities: int) -> list[ViewTable]:
    """Return the two views, 50 numbers together."""
    return [
        ViewTable(name="basic", n_entities=n_entities, n_features=30),
        ViewTable(name="detail", n_entities=n_entities, n_features=20),
    ]


def run() -> list[Result]:
    """Read 1, 100 and 500 entities of 50 features from two views."""
    n_entities = scaled(30_000)
    views = tables(n_entities)
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        folder = Path(name)
        for table in views:
            table.write(folder)
        ours = applied_repo(folder / "ours", views, folder)
        theirs = applied_repo(folder / "theirs", views, folder, feast_redis(url))
        run_skewless(ours, "materialize", url=url)
        run_feast(theirs, "materialize", "2024-01-01T00:00:00", "2026-01-01T00:00:00")
        common = {"n_entities": n_entities}
        done = race(
            [
                Contestant(name=OWN, entrant=reads.project_reads, arguments={"repo": str(ours), "url": url, **common}),
                Contestant(
                    name=FEAST, entrant=reads.feast_reads, arguments={"repo": str(theirs), "matrix": True, **common}
                ),
            ],
            rounds(3),
        )
    return [result for size in reads.SIZES for result in _results(done, size)]


def _results(done: Race, size: int) -> list[Result]:
    name = f"online: {size} {'entity' if size == 1 else 'entities'} x 50 features, to a matrix"
    lap, alone = str(size), f"{size} {reads.MGET}"

    def own(report: Report) -> float:
        return report.seconds(lap) * 1e3

    def made(report: Report) -> float:
        return report.seconds(f"{size} {reads.MATRIX}") * 1e3

    feast, matrix = done.median(FEAST, own), done.median(FEAST, made)
    mget = done.median(OWN, lambda report: report.seconds(alone) * 1e3)
    kept = f"{size} {reads.KEPT}"
    return [
        Result(
            name=name,
            value=done.median(OWN, own),
            unit="ms",
            against=f"`get_online_features`, its answer made a matrix ({matrix:.3g} ms)",
            ratio=done.median(OWN, own) / matrix,
            target=1 / _FASTER[size],
        ),
        Result(
            name=name,
            value=done.median(OWN, own),
            unit="ms",
            against=f"`get_online_features` alone ({feast:.3g} ms, no matrix)",
            ratio=done.ratio(OWN, FEAST, own),
        ),
        Result(
            name=name,
            value=done.median(OWN, own),
            unit="ms",
            against=f"one redis-py MGET of the same rows ({mget:.3g} ms)",
            ratio=_over(done, lap, alone),
            target=2,
        ),
        Result(
            name=f"{name}, the reader kept",
            value=done.median(OWN, lambda report: report.seconds(kept) * 1e3),
            unit="ms",
            against="one redis-py MGET of the same rows",
            ratio=_over(done, kept, alone),
        ),
    ]


def _over(done: Race, lap: str, other: str) -> float:
    return done.median(OWN, lambda report: report.seconds(lap) / report.seconds(other))
