"""Exploration: a share of the predictions gets one action, with its propensity in the log, and replay proves both."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.actions import Explore
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.records.predictions.segments import prediction_files
from skewless.serving.http.reply import predictions_json
from skewless.validation.replay_report import Cause
from tests.integration.outcomes.conftest import Loop
from tests.worlds.planted import alter_predictions, reseal
from tests.worlds.trained import MODEL, ask

DECISIONS = {"approve": 0.0, "decline": 0.05}


def exploring(outcome_loop: Loop, explore: Explore | None) -> ServedModel:
    """Return a version that declines many."""
    outcome_loop.use(outcome_loop.place.project.applied.model(MODEL).labels, decisions=DECISIONS, explore=explore)
    return outcome_loop.place.load(outcome_loop.place.train().package.version)


def logged(outcome_loop: Loop, version: str) -> list[dict[str, Any]]:
    rows = pa.concat_tables([pq.read_table(file) for file in prediction_files(outcome_loop.place.project.state)])
    return [row for row in rows.to_pylist() if row["version"] == version]


def expected_propensity(row: dict[str, Any], *, share: float) -> float:
    """Return the probability of an action by the definition: over what the choice could have been."""
    policy = "decline" if row["score"] >= DECISIONS["decline"] else "approve"
    return sum(chance for action, chance in (("approve", share), (policy, 1 - share)) if action == row["action"])


@pytest.mark.parametrize("sticky", [(), ("shop_id", "paid_at")])
def test_a_share_explores_and_replay_proves_it(outcome_loop: Loop, sticky: tuple[str, ...]) -> None:
    model = exploring(outcome_loop, Explore(share=0.25, action="approve", sticky=sticky))
    answer = outcome_loop.place.predict(ask(400), model=model)
    again = outcome_loop.place.predict(ask(400), model=model)
    rows = {row["id"]: row for row in logged(outcome_loop, model.version)}
    assert len(rows) == 800
    told, explored = answer.decisions, answer.explored
    assert told is not None
    assert explored is not None
    assert [rows[id_]["action"] for id_ in answer.ids] == list(told)
    declined = np.array([score >= DECISIONS["decline"] for score in answer.scores])
    assert declined.sum() > 50
    chosen = np.array(explored)
    assert 0.12 < chosen.mean() < 0.4
    assert {told[i] for i in np.flatnonzero(declined & ~chosen).tolist()} == {"decline"}
    assert {told[i] for i in np.flatnonzero(chosen | ~declined).tolist()} == {"approve"}
    for row in rows.values():
        assert row["propensity"] == pytest.approx(expected_propensity(row, share=0.25), rel=1e-15)
    assert (list(again.explored or ()) == list(explored)) == bool(sticky)
    body = predictions_json(answer, features=False)["predictions"]
    assert [item.get("explored", False) for item in body] == explored
    assert outcome_loop.place.project.replay().ok


def test_without_exploration_nothing_has_a_propensity(outcome_loop: Loop) -> None:
    model = exploring(outcome_loop, None)
    answer = outcome_loop.place.predict(ask(20), model=model)
    rows = logged(outcome_loop, model.version)
    assert {row["propensity"] for row in rows} == {None}
    assert {row["action"] for row in rows} == set(answer.decisions or ())
    assert answer.explored is None
    assert outcome_loop.place.project.replay().ok


def replaced(value: object, _before: object) -> object:
    return value


def test_altered_actions_are_found(outcome_loop: Loop) -> None:
    model = exploring(outcome_loop, Explore(share=0.25, action="approve"))
    outcome_loop.place.predict(ask(40), model=model)
    assert outcome_loop.place.project.replay().ok
    for row, (column, value) in enumerate((("action", "refer"), ("action", None), ("propensity", 0.5))):
        alter_predictions(outcome_loop.place, column, partial(replaced, value), rows=(row,))
    reseal(*outcome_loop.place.log_files())
    report = outcome_loop.place.project.replay()
    assert report.findings.by_cause == {Cause.ACTION: 3}
    assert {(item.cause, item.about) for item in report.findings.examples} == {(Cause.ACTION, MODEL)}
    assert report.different == 3
