"""What retrains a model: each cause when it holds, none when it does not, and none within the cooldown."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.contract.feedback import Outcome
from skewless.contract.lifecycle import Triggers, Watch
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.operations.models.triggers import RetrainCause, find_causes, last_training_us
from tests.worlds.trained import MODEL, SECOND, Sandbox, ask

DAY = 86_400


@pytest.fixture(autouse=True)
def _a_day_later(place: Sandbox) -> None:
    place.wait(DAY)


def causes(place: Sandbox, triggers: Triggers) -> list[RetrainCause]:
    """Return what is due with other triggers than those of the plan."""
    applied = place.project.applied
    (spec,) = applied.models
    changed = replace(spec, triggers=triggers, watch=Watch(window=timedelta(days=30), least_rows=50))
    place.project.__dict__["applied"] = replace(applied, models=(changed,))
    return find_causes(place.project, MODEL)


def label(place: Sandbox, *, right: bool) -> None:
    """Predict, and let labels come a day later that follow the scores, or their opposite; then let them mature."""
    answer = place.predict(ask(400))
    rng = np.random.default_rng(9)
    likely = answer.scores.argsort().argsort() / 400
    labels = (rng.random(400) < (likely if right else 1 - likely)).astype(float)
    place.wait(DAY)
    now = place.now_us()
    outcomes = [
        Outcome(prediction_id=id_, label=float(one), known_at=now) for id_, one in zip(answer.ids, labels, strict=True)
    ]
    OutcomeWriter(outcome_spool(ProjectState(place.state))).append(outcomes, received_at=now, source="test")
    place.wait(15 * DAY)


def test_without_triggers_nothing_is_due(place: Sandbox) -> None:
    label(place, right=False)
    assert causes(place, Triggers()) == []


def test_quality_that_fell_is_a_cause(place: Sandbox) -> None:
    label(place, right=False)
    (cause,) = causes(place, Triggers(quality=0.05))
    trained = place.model.package.metrics["auc"]
    assert cause.name == "quality"
    assert cause.evidence["labels"] == 400
    assert cause.evidence["live"] < 0.5 < trained == cause.evidence["trained"]
    assert cause.evidence["drop"] == pytest.approx(trained - cause.evidence["live"])
    assert f"worse than at training ({trained:.4f})" in cause.sentence


def test_quality_that_holds_is_none(place: Sandbox) -> None:
    label(place, right=True)
    assert causes(place, Triggers(quality=0.05)) == []


def test_labels_that_came_since_are_a_cause(place: Sandbox) -> None:
    path = place.repo / "data/payments.parquet"
    table = pq.read_table(path)
    since = last_training_us(place.project, MODEL)
    known = table["known_at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    fresh = pc.and_(pc.greater(known, since), pc.less_equal(known, place.now_us()))
    n = pc.sum(pc.cast(pc.and_(fresh, pc.is_valid(table["fraud"])), pa.int64())).as_py() or 0
    moved = pa.array([since + SECOND] * 30, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    added = table.slice(0, 30).set_column(table.column_names.index("known_at"), "known_at", moved).cast(table.schema)
    labelled = pc.sum(pc.cast(pc.is_valid(added["fraud"]), pa.int64())).as_py()
    pq.write_table(pa.concat_tables([table, added]), path)
    (cause,) = causes(place, Triggers(labels=n + labelled))
    assert cause.evidence == {"labels": n + labelled, "limit": n + labelled}
    assert causes(place, Triggers(labels=n + labelled + 1)) == []


def test_age_is_a_cause(place: Sandbox) -> None:
    assert causes(place, Triggers(age=timedelta(days=2))) == []
    place.wait(DAY)
    assert [cause.name for cause in causes(place, Triggers(age=timedelta(days=2)))] == ["age"]


def test_drift_is_that_of_the_window_looked_at_last(place: Sandbox) -> None:
    window = {
        "version": "000001",
        "since": "",
        "until": "",
        "until_us": place.now_us(),
        "rows": 500,
        "verdict": "drifted",
        "share": 0.5,
        "limit_share": 0.2,
        "drifted": ["a", "b", "c", "d"],
    }
    kept = Records(place.project.state.database, "drift_check")
    kept.add(MODEL, window)
    (cause,) = causes(place, Triggers(drift=True))
    assert cause.sentence == "50% of the features have drifted, mainly a, b, c"
    for changed in ({"verdict": "steady"}, {"version": "000000"}, {"until_us": last_training_us(place.project, MODEL)}):
        kept.add(MODEL, window | changed)
        assert causes(place, Triggers(drift=True)) == []


def test_nothing_is_due_within_the_cooldown_of_any_training(place: Sandbox) -> None:
    triggers = Triggers(age=timedelta(hours=1), cooldown=timedelta(days=1))
    assert len(causes(place, triggers)) == 1
    place.train()
    assert causes(place, triggers) == []
    place.wait(DAY)
    assert len(causes(place, triggers)) == 1
