"""The stages of the demo, in their order."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from skewless.contract.clock import OffsetClock
from skewless.demo.apis import ask_every_face
from skewless.demo.feed import Feed
from skewless.demo.hours import Hours
from skewless.demo.preparation import prepare
from skewless.demo.processes import StreamWorker, serving
from skewless.demo.tour_state import STATE, TourState
from skewless.demo.verification import compare_store, replay, retrain, where_next
from skewless.project import Project


def run_demo(repo: Path) -> dict[str, Any]:
    """Walk from definitions to a proven, retrained model; return the facts; everything started is stopped.

    Args:
        repo: a project whose label tables hold the test period of its models.

    Raises:
        SkewlessError: a stage failed; its message says what to fix.
    """
    start = time.perf_counter()
    state = (repo / STATE).resolve()
    shutil.rmtree(state, ignore_errors=True)
    OffsetClock.create(state / "clock")
    project = Project(repo, state=STATE, clock=f"file:{state}/clock", port=0)
    walk = TourState(project=project, console=Console())
    try:
        prepare(walk)
        _live(walk)
        replay(walk)
    finally:
        project.close()
    where_next(walk)
    walk.facts["seconds"] = round(time.perf_counter() - start, 1)
    return walk.facts


def _live(walk: TourState) -> None:
    feed = Feed.of(walk.project.streams, walk.project.repo)
    worker = StreamWorker(walk)
    try:
        if feed:
            worker.start()
        with serving(walk) as client:
            with ThreadPoolExecutor(2) as pool:
                Hours(walk=walk, client=client, feed=feed, worker=worker, pool=pool).live()
            ask_every_face(walk, client)
            retrain(walk, client)
            compare_store(walk)
    finally:
        worker.stop()
        feed.close()
