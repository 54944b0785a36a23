"""The demo on a project's own data: its clock starts before the test period and moves through it."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from skewless.contract.clock import OffsetClock
from skewless.contract.labels import Outcomes
from skewless.project import Project
from skewless_demo.decided import ReceivedDecisions
from skewless_demo.feed import Feed
from skewless_demo.hours import Hours
from skewless_demo.outcomes import SentOutcomes, compare_with_table
from skewless_demo.stages import compare_apis, compare_store, prepare, print_next_steps, replay, retrain
from skewless_demo.tour_state import STATE, StreamWorker, TourState, log_to_file, serving


def run_demo(repo: Path) -> dict[str, Any]:
    """Run all stages, from definitions to a retrained and replayed model; return the facts.

    All started processes are stopped. Log lines go to a file.

    Args:
        repo: a project whose label tables cover the test period of its models.

    Raises:
        SkewlessError: a stage failed; the error has the fix.
    """
    start = time.perf_counter()
    state = (repo / STATE).resolve()
    shutil.rmtree(state, ignore_errors=True)
    OffsetClock.create(state / "clock")
    project = Project(repo, state=STATE, clock=f"file:{state}/clock", port=0)
    tour = TourState(project=project, console=Console())
    with project, log_to_file(tour.console, state / "demo.log"):
        prepare(tour)
        _run_test_period(tour)
        replay(tour)
    print_next_steps(tour)
    tour.facts["seconds"] = round(time.perf_counter() - start, 1)
    return tour.facts


def _run_test_period(tour: TourState) -> None:
    feed = Feed.of(tour.project.streams, tour.project.repo)
    outcomes = {
        spec.name: SentOutcomes(spec=spec, plan=tour.plan_of(spec), rows=tour.rows[spec.name])
        for spec in tour.served
        if isinstance(spec.labels, Outcomes)
    }
    decisions = [item for each in outcomes.values() if (item := ReceivedDecisions.of(tour, each)) is not None]
    worker = StreamWorker(tour)
    try:
        if feed:
            worker.start()
        with serving(tour) as client, ThreadPoolExecutor(2) as pool:
            hours = Hours(
                tour=tour,
                client=client,
                feed=feed,
                worker=worker,
                pool=pool,
                decisions=decisions,
                outcomes=outcomes,
            )
            hours.run()
            compare_apis(tour, client)
            retrain(tour, client)
            for each in outcomes.values():
                compare_with_table(tour, each)
            hours.finish()
            compare_store(tour)
    finally:
        worker.stop()
        for item in decisions:
            item.close()
        feed.close()
