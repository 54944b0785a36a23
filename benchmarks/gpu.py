"""Scoring on a GPU against the CPU path of the same machine and against bare calls; server end to end with and without.

Without a GPU the second runtime is nvForest's CPU class, in a smaller grid: what is measured then is our own overhead.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import gpu_entrants
from benchmarks.contestant import Contestant, ContestantError, Race, race
from benchmarks.gpu_entrants import Where, nvforest_folder
from benchmarks.gpu_served import served_rows
from benchmarks.result import Result
from benchmarks.scale import rounds, scale, scaled
from benchmarks.serving_race import fact, seconds
from skewless_gpu.cuda import driver
from skewless_gpu.nvforest import is_installed

_OWN, _SECOND, _CUDA, _BARE = "our CPU path", "our nvForest runtime", "our xgboost-cuda runtime", "bare"
_JUDGED_ROWS, _TARGET = 4_096, 1 / 1.1  # of a bare call's rate, where the batch is large and there is a GPU


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is measured.

    Args:
        title: what every row says of where the second runtime works.
        served: algorithms and trees of the servers that are compared.
    """

    where: Where
    title: str
    trees: Sequence[int]
    sizes: Sequence[int]
    served: Sequence[tuple[str, int]]


def run() -> list[Result]:
    """Measure calls of all sizes, then servers."""
    grid = _grid()
    models = [(algorithm, trees) for trees in grid.trees for algorithm in ("xgboost", "lightgbm")]
    calls = [row for model in models for row in _calls(grid, *model)]
    served = [row for model in grid.served for row in served_rows(grid.where, f"gpu: {grid.title}", *model)]
    return [*calls, *served]


def _grid() -> Grid:
    devices = driver().devices
    if devices and is_installed():
        return Grid(
            where="gpu",
            title=devices[0].name,
            trees=(200, 1_000, 5_000),
            sizes=(1, 8, 64, 512, 4_096, 16_384, 65_536),
            served=(("xgboost", 1_000), ("lightgbm", 1_000)),
        )
    if nvforest_folder() is None and not is_installed():
        raise ContestantError("nvForest is not installed here: pip install 'skewless[gpu]', or make setup-nvforest")
    return Grid(
        where="cpu",
        title="no GPU, nvForest's CPU class",
        trees=(200, 1_000),
        sizes=(1, 64, 512, 4_096),
        served=(("lightgbm", 200),),
    )


def _calls(grid: Grid, algorithm: str, trees: int) -> Iterator[Result]:
    sizes = [size for size in grid.sizes if size == 1 or size <= gpu_entrants.LARGEST * scale()]
    with tempfile.TemporaryDirectory() as folder:
        model = {"algorithm": algorithm, "trees": scaled(trees, least=5), "folder": folder}
        Contestant(name="the model", entrant=gpu_entrants.prepare, arguments=model).run()
        given = {"algorithm": algorithm, "folder": folder, "sizes": sizes, "budget_s": seconds(1)}
        done = race(list(_entrants(grid.where, algorithm, given)), rounds(3))
    what = f"gpu: {grid.title}: {algorithm}, {trees:,} trees"
    for name in [name for name in (_SECOND, _CUDA) if name in done.reports]:
        for size in sizes:
            yield from _rows(done, f"{what}, {size:,} row{'s' * (size > 1)}, {name}", name, size, grid.where)


def _entrants(where: Where, algorithm: str, given: dict[str, Any]) -> Iterator[Contestant]:
    placed = {**given, "where": where}
    yield Contestant(name=_OWN, entrant=gpu_entrants.own, arguments=given)
    yield Contestant(name=_SECOND, entrant=gpu_entrants.second, arguments=placed)
    yield Contestant(name=f"{_BARE} {_SECOND}", entrant=gpu_entrants.bare_nvforest, arguments=placed)
    if where == "gpu" and algorithm == "xgboost":
        yield Contestant(name=_CUDA, entrant=gpu_entrants.xgboost_cuda, arguments=given)
        yield Contestant(name=f"{_BARE} {_CUDA}", entrant=gpu_entrants.bare_inplace, arguments=given)


def _rows(done: Race, what: str, name: str, size: int, where: Where) -> Iterator[Result]:
    bare, call = f"{_BARE} {name}", "`inplace_predict`" if name == _CUDA else "bare nvForest call"
    rate = fact(f"{size} rate")
    yield Result(
        name=what,
        value=done.median(name, rate),
        unit="rows/s",
        against=f"{call} ({done.median(bare, rate):,.0f} rows/s)",
        ratio=done.ratio(name, bare, rate),
        target=_TARGET if where == "gpu" and size >= _JUDGED_ROWS else None,
    )
    for share in ("p50", "p99"):
        latency = fact(f"{size} {share}")
        yield Result(
            name=f"{what}, {share}",
            value=done.median(name, latency),
            unit="ms",
            against=f"{_OWN} ({done.median(_OWN, latency):.3g} ms)",
            ratio=done.ratio(name, _OWN, latency),
        )
