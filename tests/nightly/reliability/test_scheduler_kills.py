"""A scheduler killed before or after any durable step: no tick twice, nothing left open, the next one finishes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.project_state import ProjectState
from tests.nightly.worlds.scheduler import METHODS, SECOND, effects, killed
from tests.reliability.kills import Side
from tests.servers.postgres import address_of

SIDES: tuple[Side, ...] = ("before", "after")
START = 1_768_478_400 * SECOND
Hits = Counter[tuple[str, Side]]


class KilledTerms:
    """One ledger, and a clock that continues from kill to kill."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url, self.now_us = root, url, START
        root.mkdir()

    def points(self) -> list[str]:
        """Return the steps that a term comes by which has something to do."""
        self.now_us += 20 * SECOND
        done = killed(self.root, self.url, self.now_us, "", "before")
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "#" in line]

    def kill(self, point: str, side: Side) -> bool:
        """Kill a term at a point, then let another follow; say whether the first one came by it."""
        self.now_us += 20 * SECOND
        done = killed(self.root, self.url, self.now_us, point, side)
        assert done.returncode in {0, -9}, done.stderr
        after = killed(self.root, self.url, self.now_us + SECOND, "", "before")
        assert after.returncode == 0, f"{side} {point}: {after.stderr}"
        self.check(f"{side} {point}")
        return done.returncode == -9

    def check(self, where: str) -> None:
        """Check what must hold after any kill."""
        ledger = Ledger(ProjectState(self.root, self.url))
        assert ledger.open() == [], where
        twice = [name for name, n in Counter(effects(self.root)).items() if n > 1]
        assert twice == [], where
        runs = ledger.read_latest_first()
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
            assert ledger.latest_ticks(job, 1)[0] == self.now_us // (2 * SECOND) * (2 * SECOND), (where, job)


@pytest.fixture
def terms(tmp_path: Path, project_database: Database) -> KilledTerms:
    return KilledTerms(tmp_path / "state", address_of(project_database))


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


# On PostgreSQL, schedulers are killed in test_schedulers.py, too.
@pytest.mark.parametrize(
    "project_database", ["sqlite", pytest.param("postgres", marks=pytest.mark.soak)], indirect=True
)
def test_kills_around_the_claim_and_the_end_of_a_run(terms: KilledTerms) -> None:
    terms.points()
    kinds = {point.partition("#")[0] for point in terms.points()}
    methods = {name for names in METHODS.values() for name in names}
    assert kinds == {"work", "select", "insert", "update", *methods}
    # The third insert, after those of the lease and the term, is in the transaction of a start.
    hits = kill_all(terms, [("start#1", "after"), ("work#1", "after"), ("end#1", "before"), ("insert#3", "after")])
    assert hits.total() == 4


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
