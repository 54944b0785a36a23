"""Replay: predictions proven a second and core, and whether a log four times as long takes four times as long."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.contestant import Contestant
from benchmarks.meter import Meter, Report
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.server import own_server
from benchmarks.serving_repo import Shape, fill, shop_name, write_project

STEP = 4
_PER_FILE = 10_000
_LEAST = 20_000  # predictions a second and core


def run() -> list[Result]:
    """Log 100 k predictions of 40 features from 2 views and replay them, then four times as many."""
    n = scaled(100_000, least=_PER_FILE)
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        repo = write_project(Path(name), shape)
        place = {"repo": str(repo), "url": url}
        Contestant(name="the project", entrant=fill, arguments=place).run()
        few = _measured(place, shape, n, first=0)
        many = _measured(place, shape, STEP * n, first=n)
    return [
        Result(
            name=f"replay: {STEP * n:,} predictions, a second and core",
            value=STEP * n / many.cpu_seconds(),
            unit="predictions/s",
            against=f"{_LEAST:,} predictions/s",
            ratio=STEP * n / many.cpu_seconds() / _LEAST,
            target=1.0,
        ),
        Result(
            name=f"replay: {STEP} times the log, CPU time of a prediction",
            value=many.cpu_seconds() / (STEP * n) * 1e6,
            unit="us",
            against=f"{n:,} predictions",
            ratio=many.cpu_seconds() / few.cpu_seconds() / STEP,
            target=1.2,
        ),
        Result(
            name=f"replay: {STEP} times the log, memory",
            value=many.peak_bytes() / 1e6,
            unit="MB",
            against=f"{n:,} predictions",
            ratio=many.peak_bytes() / few.peak_bytes(),
        ),
    ]


def ask(meter: Meter, *, repo: str, url: str, source: str, times: int) -> str:
    """Predict a file again and again, each time into a log of its own writer."""
    from skewless import Project  # noqa: PLC0415 - an entrant's own

    with Project(repo, redis_url=url, threads=1) as project, meter.lap():
        for _ in range(times):
            project.predict_file("fraud", Path(source), Path(source).with_suffix(".scores.parquet"))
    return ""


def prove(meter: Meter, *, repo: str, expected: int) -> str:
    """Replay the whole log; it reads no Redis."""
    from skewless import Project  # noqa: PLC0415 - an entrant's own

    with Project(repo, redis_url="redis://127.0.0.1:1") as project:
        assert project.models  # plan and packages are at hand
        with meter.lap():
            report = project.replay()
    assert report.ok, report.lines()
    assert report.compared == expected, report.compared
    return ""


def _measured(place: dict[str, str], shape: Shape, total: int, first: int) -> Report:
    """Ask until the log holds ``total`` predictions, of which ``first`` are there, and replay it."""
    rows = min(_PER_FILE, total)
    pairs = shape.pairs(rows, seed=total)
    source = Path(place["repo"]) / f"asked-{total}.parquet"
    shops = pa.array(map(shop_name, pairs[:, 1].tolist()), pa.string())
    pq.write_table(pa.table({"card_id": pairs[:, 0], "shop_id": shops}), source)
    times = (total - first) // rows
    Contestant(name="asking", entrant=ask, arguments={**place, "source": str(source), "times": times}).run()
    arguments = {"repo": place["repo"], "expected": first + times * rows}
    return Contestant(name="replay", entrant=prove, arguments=arguments).run()
