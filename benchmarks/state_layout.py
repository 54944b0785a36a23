"""This release against an older commit, and against itself on PostgreSQL and S3: the same work, in turn.

``BENCH_COMMIT`` names the commit. Each release runs its own code, by the same Python and libraries, and is reached by
its commands and its public Python alone. Packages that only the older release needs may be in a folder of
``PYTHONPATH``. The third side needs the setting ``storage_url``.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import state_layout_work as entrants
from benchmarks.contestant import Contestant, ContestantError, Quantity, Race, race
from benchmarks.result import Result, more_is_better
from benchmarks.scale import rounds, scaled
from benchmarks.server import own_server
from benchmarks.state_layout_project import LayoutShape
from tools.shared_services import has_storage_setting, shared_services

ROUNDS = 3
NOW, BEFORE, SHARED = "this release", "before", "shared"
SLOWER = 1.05  # the most that a time may be of the older one's; of a rate its inverse at least
_COMMIT = "ee076095"
_ROOT = Path(__file__).resolve().parents[1]
_Entrant = Callable[..., str]
_Side = tuple[Path, Mapping[str, str]]  # checkout, and the variables of the layout


@dataclass(frozen=True)
class Measure:
    """A quantity of the reports, with its name and unit."""

    what: str
    unit: str
    quantity: Quantity


def run() -> list[Result]:
    """Run each work on all sides."""
    shape = LayoutShape(
        cards=scaled(1_000_000), payments=scaled(1_000_000), labels=scaled(200_000), predictions=scaled(50_000)
    )
    events, seconds = scaled(500_000), max(scaled(30, least=3), 3)
    commit = os.environ.get("BENCH_COMMIT", _COMMIT)
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        checkout = opened.enter_context(worktree(commit, folder / "before"))
        place = {"url": opened.enter_context(own_server()), "source": str(folder / "source")}
        shape.write(folder / "source")
        sides: dict[str, _Side] = {NOW: (_ROOT, {}), BEFORE: (checkout, {})}
        if has_storage_setting():
            sides[SHARED] = (_ROOT, unique_addresses(opened.enter_context(shared_services())))
        else:
            print("state_layout: PostgreSQL and S3 are skipped: this release has no setting storage_url", flush=True)
        done = {
            "batch": compare(entrants.batch, place, sides),
            "stream": compare(entrants.stream, {**place, "n": events}, sides),
            "segments": compare(entrants.segments, {**place, "seconds": seconds}, sides),
        }
    return [
        row
        for name, measures in _measures(shape, events).items()
        for measure in measures
        for row in rows(measure, done[name], commit, shared=SHARED in sides)
    ]


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out into a new folder, and remove it afterwards.

    Raises:
        ContestantError: git cannot check it out.
    """
    git = ["git", "-C", str(_ROOT), "worktree"]
    command = [*git, "add", "--detach", str(folder), commit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContestantError(f"commit {commit} cannot be checked out: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def unique_addresses(variables: Mapping[str, str]) -> dict[str, str]:
    """Return addresses in which each run replaces UNIQUE, so that it has a schema and a folder of its own.

    >>> unique_addresses({"SKEWLESS_DATABASE_URL": "postgresql:///b?host=/s", "SKEWLESS_STORAGE_URL": "s3://b/f?e=h"})
    {'SKEWLESS_DATABASE_URL': 'postgresql:///b?host=/s&schema=b_UNIQUE', 'SKEWLESS_STORAGE_URL': 's3://b/f/UNIQUE?e=h'}
    """
    database, storage = variables["SKEWLESS_DATABASE_URL"], variables["SKEWLESS_STORAGE_URL"]
    path, mark, options = storage.partition("?")
    return {
        **variables,
        "SKEWLESS_DATABASE_URL": f"{database}{'&' if '?' in database else '?'}schema=b_UNIQUE",
        "SKEWLESS_STORAGE_URL": f"{path}/UNIQUE{mark}{options}",
    }


def compare(entrant: _Entrant, arguments: Mapping[str, Any], sides: Mapping[str, _Side]) -> Race:
    """Run an entrant on all sides, in turn."""
    return race(
        [
            Contestant(name=name, entrant=entrant, arguments={**arguments, "shared": dict(shared)}, code=code)
            for name, (code, shared) in sides.items()
        ],
        rounds(ROUNDS),
    )


def rows(measure: Measure, done: Race, commit: str, *, shared: bool) -> list[Result]:
    """Return this release against the commit, and the shared layout against files; ratios are those of the medians."""
    target = 1 / SLOWER if more_is_better(measure.unit) else SLOWER
    peers: list[tuple[str, str, str, float | None]] = [(NOW, BEFORE, commit, target)]
    if shared:
        peers.append((SHARED, NOW, "files and SQLite", None))
    return [
        Result(
            name=f"state_layout: {measure.what}{', PostgreSQL and S3' if own == SHARED else ''}",
            value=done.median(own, measure.quantity),
            unit=measure.unit,
            against=f"{text} ({done.median(peer, measure.quantity):,.4g} {measure.unit})",
            ratio=done.median(own, measure.quantity) / done.median(peer, measure.quantity),
            target=limit,
        )
        for own, peer, text, limit in peers
    ]


def _measures(shape: LayoutShape, events: int) -> dict[str, Sequence[Measure]]:
    return {
        "batch": [
            *_work("materialize", shape.cards, "rows"),
            *_work("materialize again", shape.added, "rows"),
            *_work("import", shape.payments, "events"),
            *_work("backfill", shape.payments, "events"),
            *_work("training set", shape.labels, "rows"),
            *_work("dataset", shape.labels, "rows"),
            *_work("train", shape.labels, "rows"),
            *_work("predict", shape.predictions, "predictions"),
            *_work("replay", shape.predictions, "predictions"),
        ],
        "stream": _work("stream", events, "events"),
        "segments": [
            _fact("events", "sent", "events/s"),
            _fact("segments", "segments", "segments/s"),
            _fact("sent to seen, p50", "p50", "ms"),
            _fact("sent to seen, p99", "p99", "ms"),
            _fact("time to catch up at the end", "caught up", "s"),
        ],
    }


def _work(lap: str, n: int, noun: str) -> list[Measure]:
    # Other programs on the machine disturb the CPU time less.
    what = f"{lap}, {n:,} {noun}"
    return [
        Measure(what, f"{noun}/s", lambda report: n / report.seconds(lap)),
        Measure(f"{what}, CPU time", "s", lambda report: report.cpu_seconds(lap)),
    ]


def _fact(what: str, fact: str, unit: str) -> Measure:
    which = f"{entrants.PARTITIONS} partitions, {entrants.PER_SECOND} events a second each: {what}"
    return Measure(which, unit, lambda report: report.facts[fact])
