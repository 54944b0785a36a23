"""Batch prediction of a million rows against an older commit: the command of a user, with the log and the result.

``BENCH_COMMIT`` names the commit. All sides predict the same file with the same model; their scores are compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.contestant import Contestant, Quantity, Race, race
from benchmarks.digest import digest_columns
from benchmarks.meter import Meter
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.serving_project import ServedProject, served_project
from benchmarks.serving_race import fact
from benchmarks.serving_repo import Shape, shop_name
from benchmarks.state_layout import worktree
from skewless_lignum.runtime import is_installed

_COMMIT = "e8b2abff"
_BEFORE, _NOW = "before", "this release"
_ROOT = Path(__file__).resolve().parents[1]
_COMMAND = "from skewless.cli import main; main()"
_TARGET = 4.0  # times the rate of the older commit, with lignum
_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Side:
    """A way to run the command.

    Args:
        second: the setting ``second_runtime``.
        code: checkout whose code runs.
        target: the rate to reach, over that of the older commit.
    """

    name: str
    second: str
    code: Path = _ROOT
    target: float | None = None


def run() -> list[Result]:
    """Predict with a smaller and a larger model."""
    return [*_compare(scaled(200, least=10), turns=rounds(3)), *_compare(scaled(1_000, least=10), turns=1)]


def _compare(trees: int, turns: int) -> Iterator[Result]:
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=trees)
    rows = scaled(_ROWS, least=2_000)
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        before = opened.enter_context(worktree(os.environ.get("BENCH_COMMIT", _COMMIT), folder / "before"))
        project = opened.enter_context(served_project(shape))
        _write_pairs(shape, rows, folder / "rows.parquet")
        sides = list(_sides(before))
        done = race([_contestant(side, project, folder) for side in sides], turns)
    for side in sides[1:]:
        what = f"batch: {rows:,} rows, {trees:,} trees, 40 features of 2 views, to Parquet and the log, {side.name}"
        yield _row(done, f"{what}, rate", side, "rows/s", lambda report: report.facts["rows"] / report.seconds())
        yield _row(done, f"{what}, CPU", side, "s", fact("cpu_s"))


def _sides(before: Path) -> Iterator[Side]:
    yield Side(name=_BEFORE, second="none", code=before)
    yield Side(name=_NOW, second="none")
    if is_installed():
        yield Side(name=f"{_NOW} with lignum", second="lignum", target=_TARGET)


def _contestant(side: Side, project: ServedProject, folder: Path) -> Contestant:
    arguments: dict[str, Any] = {
        "code": str(side.code),
        "repo": str(project.repo),
        "folder": str(folder),
        "environment": {"SKEWLESS_REDIS_URL": project.url, "SKEWLESS_SECOND_RUNTIME": side.second},
    }
    return Contestant(name=side.name, entrant=predict, arguments=arguments)


def _row(done: Race, what: str, side: Side, unit: str, quantity: Quantity) -> Result:
    return Result(
        name=what,
        value=done.median(side.name, quantity),
        unit=unit,
        against=f"{_BEFORE} ({done.median(_BEFORE, quantity):,.3g} {unit})",
        ratio=done.ratio(side.name, _BEFORE, quantity),
        target=side.target if unit == "rows/s" else None,
    )


def predict(meter: Meter, *, code: str, repo: str, folder: str, environment: Mapping[str, str]) -> str:
    """Run the command in a process of its own; return the digest of keys and scores."""
    target = Path(folder, "predicted.parquet")
    command = [sys.executable, "-c", _COMMAND, "predict", "fraud", "--repo", repo]
    files = ["--in", str(Path(folder, "rows.parquet")), "--out", str(target)]
    before = os.times()
    with meter.lap():
        subprocess.run([*command, *files], cwd=code, env={**os.environ, **environment, "PYTHONPATH": code}, check=True)
    after = os.times()
    meter.note("cpu_s", after.children_user + after.children_system - before.children_user - before.children_system)
    found = pq.read_table(target)
    meter.note("rows", found.num_rows)
    return digest_columns({name: found[name] for name in ("card_id", "shop_id", "score")})


def _write_pairs(shape: Shape, rows: int, path: Path) -> None:
    pairs = shape.pairs(rows, seed=77)
    shops = pa.array(map(shop_name, pairs[:, 1].tolist()), pa.string())
    pq.write_table(pa.table({"card_id": pairs[:, 0], "shop_id": shops}), path)
