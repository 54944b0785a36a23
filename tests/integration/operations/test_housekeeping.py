"""Housekeeping merges the prediction log: replay, why and the retention by days return the same results as before."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from skewless.infra.log.catalog import Segment
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.reader import PredictionLog
from skewless.infra.records.predictions.segments import DAY_US
from skewless.operations.health.status import read_status
from skewless.operations.models.drift import check_drift
from skewless.operations.models.quality import labelled_log
from skewless.operations.predictions.proof import run_replay
from skewless.operations.predictions.why import why
from skewless.operations.state.housekeeping import run_housekeeping
from skewless.project import Project
from tests.unit.infra.predictions.merges import delete_objects, objects, segments
from tests.worlds.planted import alter, flipped
from tests.worlds.trained import MODEL, SECOND, Sandbox, ask

DAY = DAY_US // SECOND


def predict(place: Sandbox, days: int, times: int) -> list[Path]:
    """Predict some times on each of some days, in segments of their own; return their files, in order."""
    for _ in range(days):
        for n in range(1, times + 1):
            place.predict(ask(n))
            place.wait(60)
        place.wait(DAY - place.now_us() // SECOND % DAY + 3_600)
    return place.log_files()


def prediction_segments(place: Sandbox) -> list[Segment]:
    return segments(ProjectState(place.state))


def delete_merged(place: Sandbox) -> None:
    """Delete the merged files as after the end of all readers; only those of the log are left."""
    state = ProjectState(place.state)
    delete_objects(state)
    assert objects(state) == {segment.stored.name for segment in segments(state)}


def answers(place: Sandbox, now: int) -> dict[str, Any]:
    """Return the results of the log's readers at a time."""
    log = PredictionLog(ProjectState(place.state), place.project.connection)
    labelled = labelled_log(place.project, MODEL).read(since_us=0, until_us=now, known_by_us=now)
    return {
        "replay": place.project.replay().as_dict(),
        "versions": log.versions(),
        "labelled": labelled.to_pylist(),
        "drift": check_drift(place.project, MODEL, until_us=now, window_us=10 * DAY_US, dry_run=True).as_dict(),
        "logged": read_status(place.project).predictions,
    }


def test_the_log_is_merged_and_everything_that_reads_it_says_the_same(place: Sandbox) -> None:
    paths = predict(place, 2, 4)
    alter(paths[2], "score", {1: lambda score: flipped(score, 3)})
    alter(paths[5], "vector", {0: lambda vector: [flipped(vector[0], 9), *vector[1:]]})
    now = place.now_us()
    before = answers(place, now)
    ids = [name for path in paths for name in pq.read_table(path)["id"].to_pylist()]
    told = {name: why(place.project, name).as_dict() for name in (ids[0], ids[4])}
    assert (before["replay"]["compared"], before["replay"]["different"]) == (20, 2)
    report = run_housekeeping(place.project)
    assert (report.merged, report.deleted) == (8, 0)  # this process reads the log, and may still use the files
    assert len(prediction_segments(place)) == 2
    assert all(path.is_file() for path in paths)
    delete_merged(place)
    assert not any(path.is_file() for path in paths)
    assert answers(place, now) == before
    log = PredictionLog(ProjectState(place.state), place.project.connection)
    entries = [log.find(name) for name in ids[::3]]
    assert [entry.logged.ids[0] for entry in entries if entry] == ids[::3]
    assert {name: why(place.project, name).as_dict() for name in told} == told
    assert run_housekeeping(place.project).merged == 0


def test_what_was_proven_is_not_proven_again_after_a_merge(place: Sandbox) -> None:
    for n in (1, 2, 3):
        place.predict(ask(n))
    assert run_replay(place.project, new=True).compared == 6
    predict(place, 1, 2)
    assert run_housekeeping(place.project).merged == 5
    assert len(prediction_segments(place)) == 2
    delete_merged(place)
    assert run_replay(place.project, new=True).compared == 3
    assert run_replay(place.project, new=True).compared == 0
    assert all(segment.is_proven for segment in prediction_segments(place))
    assert run_replay(place.project).compared == 9


def test_a_dry_run_counts_what_a_run_does_and_changes_nothing(place: Sandbox) -> None:
    predict(place, 4, 3)
    rejected = place.state / "quarantine/card_days/1.parquet"
    rejected.parent.mkdir(parents=True, exist_ok=True)
    rejected.write_bytes(b"")
    os.utime(rejected, (0, 0))
    kept = {"keep_predictions_days": 2, "keep_quarantine_days": 1}
    with closing(Project(place.repo, clock=f"file:{place.state}/clock", **kept)) as project:
        before = (segments(project.state), objects(project.state), rejected.exists())
        foreseen = run_housekeeping(project, dry_run=True)
        assert (segments(project.state), objects(project.state), rejected.exists()) == before
        done = run_housekeeping(project)
        assert (done.predictions, done.merged, done.quarantine) == (6, 6, 1)
        assert foreseen == replace(done, dry_run=True, deleted=0)
        assert run_housekeeping(project, dry_run=True).merged == 0


@pytest.mark.parametrize("is_merged", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_the_log_is_removed_by_whole_days(place: Sandbox, *, is_merged: bool) -> None:
    first_day = place.now_us() // DAY_US
    predict(place, 3, 2)
    if is_merged:
        run_housekeeping(place.project)
        delete_merged(place)
    place.wait(12 * 3_600)
    kept = []
    for _ in range(4):
        days = place.now_us() // DAY_US - first_day
        project = Project(place.repo, clock=f"file:{place.state}/clock", keep_predictions_days=2)
        run_housekeeping(project)
        project.close()
        kept.append((days, sorted({segment.at_us // DAY_US - first_day for segment in prediction_segments(place)})))
        place.wait(DAY)
    assert kept == [(3, [1, 2]), (4, [2]), (5, []), (6, [])]
