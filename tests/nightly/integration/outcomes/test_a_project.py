"""A project whose labels are outcomes alone: the scheduler trains it, and all that asks for labels gets them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from typer.main import get_command

from skewless.cli import create_app
from skewless.commands.operate import invoke_in_process
from skewless.contract.errors import SourceError
from skewless.contract.labels import Outcomes
from skewless.contract.lifecycle import Triggers
from skewless.contract.spec import Gate, ModelSpec, Split
from skewless.operations.data.validation import suggest_suites
from skewless.operations.jobs.scheduler import run_once
from skewless.operations.models.drift import check_drift
from skewless.operations.models.quality import quality
from skewless.operations.models.triggers import find_causes
from skewless_control_room.importance import importance
from skewless_control_room.model_card import card
from tests.integration.outcomes.conftest import DAY, Loop
from tests.worlds.applied_plans import edit_plan
from tests.worlds.edits import edit
from tests.worlds.trained import MODEL, SECOND

RETRAIN = f"retrain {MODEL}"


def learn_from_outcomes(outcome_loop: Loop) -> None:
    """Let the labels of the applied model be outcomes, as an edit and an apply would."""

    def change(body: dict[str, Any]) -> None:
        (spec,) = [ModelSpec.from_dict(item) for item in body["models"]]
        triggers = Triggers(labels=100, cooldown=timedelta(0))
        split = Split(test=timedelta(days=6), embargo=timedelta(days=1))
        gate = Gate(metric="auc", floor=0.6)
        body["models"] = [replace(spec, labels=Outcomes(), split=split, triggers=triggers, gate=gate).as_dict()]

    edit_plan(outcome_loop.place.project.state, change)
    edit(
        outcome_loop.place.repo,
        'column="fraud", value_set=[0, 1]',
        'column="outcome_label", value_set=[0, 1]',
        file="expectations.py",
    )
    outcome_loop.place.project.refresh()


def test_outcomes_train_the_next_version(outcome_loop: Loop) -> None:
    learn_from_outcomes(outcome_loop)
    project = outcome_loop.place.project
    outcome_loop.predict(2)
    with pytest.raises(SourceError, match="no usable row"):
        project.training_set(MODEL)
    assert find_causes(project, MODEL) == []
    outcome_loop.predict(20, outcomes=True)
    (cause,) = find_causes(project, MODEL)
    assert (cause.name, cause.evidence["labels"]) == ("labels", len(outcome_loop.known))
    (run,) = run_once(project, ["retrain"], invoke_in_process(get_command(create_app())))
    assert (run.id.job, run.state) == (RETRAIN, "done"), run.error
    (body,) = run.outputs["models"]
    assert (body["version"], body["promoted"]) == ("000002", True)
    assert (
        body["rows"]["used"] == len(outcome_loop.known) == body["rows"]["predictions"] - body["rows"]["without_outcome"]
    )
    found = card(project, MODEL)
    assert "Labels are outcomes of logged predictions, known when they arrived" in found.text
    assert f"| without_outcome | {body['rows']['without_outcome']} |" in found.text
    assert project.validate([MODEL]).reports[0].n_rows == len(outcome_loop.known)
    suggested = suggest_suites(project).suites[f"labels:{MODEL}"]
    assert {item.arguments.get("column") for item in suggested} >= {"amount", "outcome_label"}

    model = outcome_loop.place.load("000002")
    outcome_loop.predict(2, model=model, outcomes=True)
    assert {item.version: item.labelled for item in quality(project, MODEL).whole.versions} == {
        "000001": len(outcome_loop.known) - 30,
        "000002": 30,
    }
    window = 3 * DAY * SECOND
    assert {item.version for item in importance(project, MODEL, window_us=window, windows=1).windows} >= {"000002"}
    report = check_drift(project, MODEL, window_us=window)
    assert report.label is not None
    assert report.label.rows == 30
