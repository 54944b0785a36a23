"""Sinks of a project: its status, its refused decisions, and the predictions that retention keeps for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from skewless.contract.decisions import DecisionStream
from skewless.contract.sinks import ParquetSink
from skewless.infra.decisions.outbox import Refusal, SinkPosition, SinkPositions
from skewless.infra.log.daily_counts import DailyCounts, RowCounts
from skewless.infra.plans.applied_plan import hold_apply, read_plan_number, read_valid, save_applied
from skewless.infra.predictions.segments import DAY_US
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.housekeeping import run_housekeeping
from skewless.operations.refused import list_refused, sample_refused
from skewless.operations.status import read_status
from skewless.project import Project
from tests.unit.infra.predictions.merges import segments
from tests.worlds.decided import STREAM, T_US, append_decisions, decision_id
from tests.worlds.trained import MODEL, Sandbox


@pytest.fixture
def state(place: Sandbox) -> ProjectState:
    """The state of a project whose decision stream has one sink."""
    state = ProjectState(place.state)
    applied = read_valid(state)
    assert applied is not None
    stream = DecisionStream(name=STREAM, model=MODEL, source="payments", sinks=(ParquetSink(name="out"),))
    with hold_apply(state) as lease:
        save_applied(state, replace(applied, decisions=(stream,)), read_plan_number(state) + 1, lease)
    return state


def test_retention_keeps_what_a_sink_waits_for(place: Sandbox, state: ProjectState) -> None:
    positions = SinkPositions(state.database)
    positions.begin("out", 0)
    for start in (0, 10, 20):
        append_decisions(state, range(start, start + 10))
    project = Project(place.repo, clock=f"file:{place.state}/clock", keep_predictions_days=1)
    place.wait(max(0, (T_US + 9 * DAY_US - place.now_us()) // 1_000_000))
    kept = []
    for confirmed in (0, 15, 30):
        positions.write("out", SinkPosition(next=confirmed), (), lambda: None)
        run_housekeeping(project)
        kept.append([segment.first for segment in segments(state) if segment.at_us == T_US])
    project.close()
    assert kept[0][0] == 0
    assert sum(segment.rows for segment in segments(state) if segment.at_us == T_US) == 0
    assert kept[-1] == []


def test_status_and_the_page_of_refused_data_show_sinks(place: Sandbox, state: ProjectState) -> None:
    positions = SinkPositions(state.database)
    positions.begin("out", 0)
    append_decisions(state, range(10))
    refusal = Refusal(id=decision_id(3), position=3, reason="the receiver answered with status 422")
    positions.write("out", SinkPosition(next=6, confirmed=5, refused=1), [refusal], lambda: None)
    counts = RowCounts(accepted=5, refused=Counter({refusal.reason: 1}))
    DailyCounts(state.database).add("sinks/out", place.now_us(), counts)
    (sink,) = read_status(place.project).sinks
    assert (sink.name, sink.kind, sink.streams, sink.waiting) == ("out", "parquet", (STREAM,), 4)
    assert (sink.delivered, sink.refused, sink.process) == (5, 1, None)
    assert sink.lag_s is not None
    (log,) = [item for item in list_refused(place.project) if item.kind == "sink"]
    assert (log.log, log.name, log.accepted, log.rejected) == ("sinks/out", "out", 5, 1)
    (row,) = sample_refused(place.project, "sinks/out")
    assert (row.partition, row.position, row.reason) == ("predictions", 3, refusal.reason)
    assert row.values == {"prediction": decision_id(3)}
