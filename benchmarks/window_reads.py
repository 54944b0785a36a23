"""Reading and merging windowed states against one MGET of the same strings."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import window_reading as entrants
from benchmarks.contestant import Contestant, Race, race
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_server

_LIMIT_MS = 0.3


def run() -> list[Result]:
    """Read 1 and 100 entities of four views, four windows each."""
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        arguments = {"folder": str(Path(name)), "url": url, "n": scaled(1_000_000, least=2_000)}
        done = race([Contestant(name="ours", entrant=entrants.reads, arguments=arguments)], rounds(3))
    one = _result(done, 1)
    limit = replace(one, against="the limit of 0.3 ms", ratio=one.value / _LIMIT_MS, target=1)
    return [limit, *(_result(done, size) for size in entrants.SIZES)]


def _result(done: Race, size: int) -> Result:
    own, alone = f"{size}", f"{size} MGET"
    mget = done.median("ours", lambda report: report.seconds(alone) * 1e3)
    kilobytes = done.fact("ours", f"{size} bytes") / 1e3
    return Result(
        name=f"window_reads: {size} {'entity' if size == 1 else 'entities'} x 4 views x 4 windows x 4 functions",
        value=done.median("ours", lambda report: report.seconds(own) * 1e3),
        unit="ms",
        against=f"one MGET of the same {kilobytes:,.0f} kB ({mget:.3g} ms)",
        ratio=done.median("ours", lambda report: report.seconds(own) / report.seconds(alone)),
        target=None if size == 1 else 3,
    )
