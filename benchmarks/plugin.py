"""Feast's own calls through our online store against its Redis store."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import reads
from benchmarks.contestant import Contestant, Race, race
from benchmarks.meter import Report
from benchmarks.online import tables
from benchmarks.programs import run_feast
from benchmarks.repo import PROVIDER, applied_repo, feast_redis, plugin_redis
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_server

OWN, FOURTH, FEAST = "plugin", "plugin and provider", "Feast's Redis store"
_TARGET = 1.0  # at the speed of Feast's own store


def run() -> list[Result]:
    """Read through ``store.get_online_features`` and write through ``store.push``, 50 features in two views."""
    n_entities = scaled(10_000)
    views = tables(n_entities)
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        folder = Path(name)
        for table in views:
            table.write(folder)
        repos = {
            OWN: applied_repo(folder / "ours", views, folder, plugin_redis(url), pushed=True),
            FOURTH: applied_repo(folder / "fourth", views, folder, PROVIDER + plugin_redis(url), pushed=True),
            FEAST: applied_repo(folder / "theirs", views, folder, feast_redis(url), pushed=True),
        }
        for repo in repos.values():
            run_feast(repo, "materialize", "2024-01-01T00:00:00", "2026-01-01T00:00:00")
        asked = {name: {"repo": str(repo), "n_entities": n_entities} for name, repo in repos.items()}
        read = race(
            [Contestant(name=name, entrant=reads.feast_reads, arguments=asked[name]) for name in repos], rounds(3)
        )
        view = views[0].name
        pushed = race(
            [
                Contestant(name=name, entrant=reads.feast_pushes, arguments={**asked[name], "view": view})
                for name in repos
            ],
            rounds(3),
        )
    width = views[0].n_features
    return [
        *(_result(read, OWN, size, f"get_online_features, {size} x 50 features") for size in reads.SIZES),
        *(
            _result(pushed, own, size, f"push, {size:,} rows x {width} features{named}")
            for own, named in ((OWN, ", three lines"), (FOURTH, ", with our provider"))
            for size in reads.PUSHES
        ),
    ]


def _result(done: Race, own: str, size: int, what: str) -> Result:
    def milliseconds(report: Report) -> float:
        return report.seconds(str(size)) * 1e3

    return Result(
        name=f"plugin: {what}",
        value=done.median(own, milliseconds),
        unit="ms",
        against=f"{FEAST} ({done.median(FEAST, milliseconds):.3g} ms)",
        ratio=done.ratio(own, FEAST, milliseconds),
        target=_TARGET,
    )
