"""Contributions of the features on request: against the library's own call, and what other requests feel of them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

import numpy as np
import orjson

from benchmarks.arrivals import poisson
from benchmarks.contestant import Contestant
from benchmarks.http_load import Address, closed_loop, open_loop
from benchmarks.latency import quantile
from benchmarks.meter import Meter
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import running
from benchmarks.serving_project import ServedProject, served_project
from benchmarks.serving_race import Contender, refuse_failures, seconds
from benchmarks.serving_repo import Matrix, Shape

_COMPARED, _CALLS = 20, 300
_PLAIN_RATE, _ASKED_RATE = 500.0, 20.0
_TARGET, _UNCHANGED = 1.3, 1.1
_NAME = "serving_contributions"


def run() -> list[Result]:
    """Ask for the contributions of one pair, one after another, and then a few among many plain requests."""
    shape = Shape(n_cards=10_000, n_shops=1_000, rounds=scaled(200, least=10))
    with served_project(shape) as project:
        np.save(project.folder / "vectors.npy", shape.vectors(project.pairs()[:_CALLS]))
        contender = _contender(project)
        plain = [project.predict(pair[None]) for pair in project.pairs()]
        with running(contender.server, project.where.server) as server:
            contender.check(server)
            pairs = [_alone(project, contender, server.address) for _ in range(rounds(3))]
            felt = [_among(server.address, plain, contender.requests) for _ in range(rounds(3))]
    return [*_alone_rows(pairs), *_felt_rows(felt)]


def library(meter: Meter, *, model: str, vectors: str, core: int) -> str:
    """Call the library for one row after another on the server's core, in a process of its own."""
    os.sched_setaffinity(0, {core})
    import lightgbm  # noqa: PLC0415 - it reads how many cores there are when it is loaded

    booster = lightgbm.Booster(model_file=model)
    rows = np.load(vectors)
    for row in rows:
        with meter.lap():
            booster.predict(row[None], pred_contrib=True, num_threads=1)
    return "-"


def contributions(body: bytes) -> list[float]:
    """Return the contributions of a reply's only row, in the order of the features, the bias last."""
    told = orjson.loads(body)["predictions"][0]["contributions"]
    return [told[name] for name in sorted(told, key=lambda name: (name == "bias", name))]


def _contender(project: ServedProject) -> Contender:
    import lightgbm  # noqa: PLC0415 - as above

    pairs = project.pairs()[:_CALLS]
    requests = [project.predict(pair[None], contributions=True) for pair in pairs]
    vectors = project.shape.vectors(pairs[:_COMPARED])
    booster = lightgbm.Booster(model_file=str(project.model))
    expected: Matrix = np.asarray(booster.predict(vectors, pred_contrib=True, num_threads=1))
    return Contender(server=project.server(requests[0]), requests=requests, expected=expected, scores=contributions)


def _alone(project: ServedProject, contender: Contender, address: Address) -> tuple[float, float]:
    """Return the median seconds of a request of ours and of the library's call."""
    measured = closed_loop(address, contender.requests, concurrency=1, seconds=seconds(3))
    refuse_failures(contender.server.name, measured)
    arguments = {
        "model": str(project.model),
        "vectors": str(project.folder / "vectors.npy"),
        "core": project.where.server,
    }
    report = Contestant(name="Booster.predict", entrant=library, arguments=arguments).run()
    return measured.quantile(0.5), report.seconds()


def _among(address: Address, plain: Sequence[bytes], asked: Sequence[bytes]) -> tuple[float, float, float, float]:
    """Return p50 and p99 of plain requests by themselves, and among a few that ask for contributions."""
    lasting = seconds(5)
    due = poisson(_PLAIN_RATE, lasting)
    alone = open_loop(address, plain, due)
    extra = poisson(_ASKED_RATE, lasting, seed=12)
    moments = np.concatenate([due, extra])
    order = np.argsort(moments, kind="stable")
    is_plain = order < len(due)
    requests = [plain[i % len(plain)] if i < len(due) else asked[i % len(asked)] for i in order.tolist()]
    mixed = open_loop(address, requests, moments[order])
    for measured in (alone, mixed):
        refuse_failures("skewless", measured)
    others = mixed.latencies[is_plain]
    return alone.quantile(0.5), alone.quantile(0.99), quantile(others, 0.5), quantile(others, 0.99)


def _alone_rows(pairs: Sequence[tuple[float, float]]) -> list[Result]:
    own, call = (statistics.median(column) for column in zip(*pairs, strict=True))
    return [
        Result(
            name=f"{_NAME}: one pair, 200 trees, concurrency 1, p50",
            value=own * 1e3,
            unit="ms",
            against=f"`Booster.predict(pred_contrib=True, num_threads=1)` of the vector ({call * 1e3:.3g} ms)",
            ratio=statistics.median(one / other for one, other in pairs),
            target=_TARGET,
        )
    ]


def _felt_rows(felt: Sequence[tuple[float, float, float, float]]) -> list[Result]:
    results = []
    for name, alone, among, target in (("p50", 0, 2, _UNCHANGED), ("p99", 1, 3, None)):
        value = statistics.median(turn[among] for turn in felt)
        base = statistics.median(turn[alone] for turn in felt)
        results.append(
            Result(
                name=f"{_NAME}: 500 plain requests/s among 20/s with contributions, {name} of the plain ones",
                value=value * 1e3,
                unit="ms",
                against=f"without those ({base * 1e3:.3g} ms)",
                ratio=statistics.median(turn[among] / turn[alone] for turn in felt),
                target=target,
            )
        )
    return results
