"""A scheduler killed before or after any durable step: no tick twice, nothing left open, the next one finishes."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from skewless.infra.jobs.ledger import Ledger
from skewless.infra.storage.project_state import ProjectState
from tests.reliability.kills import Side
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.scheduler import SECOND, STEPS_TTL_S, effects, killed

SIDES: tuple[Side, ...] = ("before", "after")
START = 1_768_478_400 * SECOND
Hits = Counter[tuple[str, Side]]


class KilledTerms:
    """One ledger, one Redis, and a clock that continues from kill to kill."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url, self.now_us = root, url, START

    def points(self) -> list[str]:
        """Return the steps that a term comes by which has something to do."""
        self.wait()
        self.now_us += 20 * SECOND
        done = killed(self.root, self.url, self.now_us, "", "before")
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "#" in line]

    def kill(self, point: str, side: Side) -> bool:
        """Kill a term at a point, then let another follow; say whether the first one came by it."""
        self.wait()
        self.now_us += 20 * SECOND
        done = killed(self.root, self.url, self.now_us, point, side)
        assert done.returncode in {0, -9}, done.stderr
        self.wait()
        after = killed(self.root, self.url, self.now_us + SECOND, "", "before")
        assert after.returncode == 0, f"{side} {point}: {after.stderr}"
        self.check(f"{side} {point}")
        return done.returncode == -9

    def wait(self) -> None:
        """Wait until the lease of a dead holder has expired."""
        time.sleep(STEPS_TTL_S * 1.1)

    def check(self, where: str) -> None:
        """Check what must hold after any kill."""
        ledger = Ledger(ProjectState(self.root))
        assert ledger.open() == [], where
        twice = [name for name, n in Counter(effects(self.root)).items() if n > 1]
        assert twice == [], where
        runs = [ledger.get(run_id) for run_id in ledger.ids()]
        assert {str(run.id) for run in runs} >= set(effects(self.root)), where
        done = {str(run.id) for run in runs if run.state == "done"}
        assert done <= set(effects(self.root)), where
        for run in runs:
            assert run.state in {"done", "lost"}, (where, run)
        # Each tick of the job that is begun again was done in the end.
        ticks = {run.id.tick_us for run in runs if run.id.job == "retrain m"}
        assert ticks == {run.id.tick_us for run in runs if run.id.job == "retrain m" and run.state == "done"}, where
        # The clock advanced 20 s between the kills: each time the latest tick of each job exists, from any process.
        for job in ("tick", "retrain m"):
            assert ledger.ids(job)[-1].tick_us == self.now_us // (2 * SECOND) * (2 * SECOND), (where, job)


@pytest.fixture
def terms(tmp_path: Path) -> Iterator[KilledTerms]:
    with running(Node(program("valkey"), tmp_path / "node")) as node:
        yield KilledTerms(tmp_path / "state", node.url)


def kill_all(terms: KilledTerms, cases: Sequence[tuple[str, Side]]) -> Hits:
    hits: Hits = Counter()
    for point, side in cases:
        if terms.kill(point, side):
            hits[point.partition("#")[0], side] += 1
    return hits


def cases_of(points: Sequence[str], n: int, seed: int) -> list[tuple[str, Side]]:
    """Return n kills: each kind of step on both sides in turn, at chosen numbers."""
    chance = random.Random(seed)
    kinds = sorted({point.partition("#")[0] for point in points})
    by_kind = {kind: [point for point in points if point.partition("#")[0] == kind] for kind in kinds}
    wanted = [(kind, side) for kind in kinds for side in SIDES]
    return [(chance.choice(by_kind[wanted[i % len(wanted)][0]]), wanted[i % len(wanted)][1]) for i in range(n)]


def test_kills_around_the_claim_and_the_end_of_a_run(terms: KilledTerms) -> None:
    terms.points()
    kinds = {point.partition("#")[0] for point in terms.points()}
    assert kinds == {"take", "link-terms", "link-start", "work", "link-end", "release", "sync-draft", "sync-folder"}
    hits = kill_all(terms, [("link-start#1", "after"), ("work#1", "after"), ("link-end#1", "before")])
    assert hits.total() == 3


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_a_hundred_kills(terms: KilledTerms, tell: Callable[[str], None]) -> None:
    seed = random.randrange(2**32)
    terms.points()
    points = terms.points()
    hits = kill_all(terms, cases_of(points, 100, seed))
    rows = [
        f"{kind:12} before {hits[kind, 'before']:3} after {hits[kind, 'after']:3}"
        for kind in sorted({k for k, _ in hits})
    ]
    tell("\n".join([f"seed {seed}: {hits.total()} kills, {len(effects(terms.root))} runs done", *rows]))
    assert hits.total() == 100
    assert min(hits.values()) >= 3
