"""From the start of a server to its first answer, and the memory that it holds then, with 1, 10 and 50 models."""

from __future__ import annotations

import shutil
import statistics

from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import running
from benchmarks.serving_asks import MODEL
from benchmarks.serving_project import ServedProject, served_project
from benchmarks.serving_repo import Shape

MODELS = (1, 10, 50)
_LIMITS_S = {1: 1.0, 50: 2.0}
_LIMIT_MB = 150.0
_NAME = "serving_start"


def run() -> list[Result]:
    """Start the server of one project with more and more of its models taken away: from 50 down to 1."""
    most = scaled(MODELS[-1], least=3)
    shape = Shape(n_cards=10_000, n_shops=1_000, rounds=scaled(200, least=10), models=most, n_labels=4_000)
    results: list[Result] = []
    with served_project(shape) as project:
        for models in reversed(MODELS):
            results = _rows(project, min(models, most), models) + results
    return results


def _rows(project: ServedProject, kept: int, models: int) -> list[Result]:
    packages = project.repo / ".skewless" / "packages"
    for folder in sorted(packages.iterdir())[kept:]:
        shutil.rmtree(folder)
    first = project.predict(project.pairs()[:1], model=MODEL)
    turns = []
    for _ in range(rounds(5)):
        with running(project.server(first), project.where.server) as server:
            turns.append((server.ready_seconds, server.resident_bytes()))
    ready, memory = (statistics.median(column) for column in zip(*turns, strict=True))
    what = f"{_NAME}: {models} models of 200 trees" if models > 1 else f"{_NAME}: 1 model of 200 trees"
    limit = _LIMITS_S.get(models)
    return [
        Result(
            name=f"{what}, start to first answer",
            value=ready,
            unit="s",
            against="-" if limit is None else f"the limit of {limit:g} s",
            ratio=None if limit is None else ready / limit,
            target=None if limit is None else 1.0,
        ),
        Result(
            name=f"{what}, memory of a worker",
            value=memory / 1e6,
            unit="MB",
            against=f"the limit of {_LIMIT_MB:g} MB",
            ratio=memory / 1e6 / _LIMIT_MB,
            target=1.0,
        ),
    ]
