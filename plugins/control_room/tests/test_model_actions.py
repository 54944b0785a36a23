"""The actions on models: previewed, done through the project, and refused if the traffic has changed meanwhile."""

from __future__ import annotations

import pytest

from plugins.control_room.tests.conftest import OnePerson, Pages
from plugins.control_room.tests.model_pages import action, html, page_of, store_run
from skewless.contract.errors import ConflictError, GateError, RequestError, ScopeError
from skewless.infra.platform.jobs.ledger import Requests
from skewless.operations.models import rollout
from skewless.operations.models.versions import Promotion
from skewless.project import Project
from skewless.training.decision import Decision
from skewless_control_room.access import Viewer
from skewless_control_room.app import ControlRoom
from skewless_control_room.page import Known, Query
from skewless_control_room.pages import model
from skewless_control_room.pages.model_version import read_version
from skewless_control_room.readers import Readers
from tests.unit.training.rollout.arms import arm
from tests.worlds.rollouts import NEW, OLD, champion, count
from tests.worlds.trained import MODEL, Sandbox


def test_a_rollout_is_begun_judged_and_stopped_from_the_page(spot: Sandbox) -> None:
    project = spot.project
    page = page_of(project).versions
    assert isinstance(page, Known)
    values = {"model": MODEL, "version": NEW, "seen": page.value.seen, "reason": "looks wrong"}
    assert any("for 10%" in line for line in action("begin-rollout").preview(project, values))
    assert action("begin-rollout").run(project, values).startswith("The rollout has begun")
    with pytest.raises(ConflictError):
        action("begin-rollout").run(project, values)  # a second click

    count(project, champion=arm(), challenger=arm(seed=1))
    running = page_of(project).rollout
    assert isinstance(running, Known)
    assert running.value is not None
    assert [item["guardrail"] for item in running.value.verdicts if item["least"] is not None]
    store_run(spot, f"rollout {MODEL}", {"models": [rollout.show_rollout(project, MODEL).as_dict()]})
    running = page_of(project).rollout
    assert isinstance(running, Known)
    assert running.value is not None
    assert running.value.judged_us is not None
    assert "Stop the rollout" in html(model.PAGE, page_of(project))

    values["seen"] = running.value.seen
    assert action("advance-rollout").preview(project, values)
    assert action("advance-rollout").run(project, values).startswith("Nothing has changed")
    assert action("stop-rollout").preview(project, values)
    assert action("stop-rollout").run(project, values) == f"Version {OLD} receives all traffic again."
    values["seen"] = model.seen_state(project, MODEL)
    with pytest.raises(ConflictError, match="no rollout"):
        action("stop-rollout").run(project, values)
    decisions = page_of(project).decisions
    assert isinstance(decisions, Known)
    assert [row.change for row in decisions.value.rows[:2]] == ["rolled back", "traffic"]
    assert decisions.value.rows[0].cause == "looks wrong"


def test_a_version_is_approved_promoted_and_rolled_back_from_the_page(spot: Sandbox) -> None:
    project = spot.project
    values = {
        "model": MODEL,
        "version": NEW,
        "by": "Ada",
        "reason": "ticket 7",
        "seen": model.seen_state(project, MODEL),
    }
    assert action("approve").preview(project, values)
    assert action("approve").run(project, values) == f"{MODEL} {NEW} is approved by Ada."
    version = read_version(project, Query(path={"model": MODEL, "version": NEW}))
    assert isinstance(version.approvals, Known)
    assert [item.by for item in version.approvals.value.given] == ["Ada"]

    assert any("begins its rollout" in line for line in action("promote").preview(project, values))
    assert action("promote").run(project, values) == f"{MODEL} {NEW} has begun its rollout."
    values["seen"] = model.seen_state(project, MODEL)
    assert "is in its rollout already" in action("promote").preview(project, values)[0]
    assert action("roll-back").run(project, values) == f"Version {OLD} receives all traffic again."
    assert champion(project) == OLD

    project.store.aliases.move(MODEL, "champion", expect=OLD, to=NEW, reason="by hand", now_us=spot.now_us())
    with pytest.raises(ConflictError):
        action("roll-back").run(project, values)
    values["seen"] = model.seen_state(project, MODEL)
    assert any(OLD in line for line in action("roll-back").preview(project, values))
    assert action("roll-back").run(project, values) == f"Version {OLD} receives all traffic again."
    assert champion(project) == OLD


def test_a_version_that_fails_its_gate_is_not_promoted(spot: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Decision(promote=False, reason="auc 0.5 misses the floor", candidate=0.5)
    planned = Promotion(model=MODEL, version=NEW, champion=OLD, decision=failed, test_rows=900)
    monkeypatch.setattr(Project, "promote", lambda *_, **__: planned)
    values = {"model": MODEL, "version": NEW, "seen": model.seen_state(spot.project, MODEL)}
    lines = action("promote").preview(spot.project, values)
    assert lines[0] == f"Nothing: {MODEL} {NEW} does not pass its gate, and champion {OLD} stays."
    with pytest.raises(GateError, match="misses the floor"):
        action("promote").run(spot.project, values)


def test_a_measurement_is_requested_of_the_scheduler(spot: Sandbox) -> None:
    values = {"model": MODEL, "what": "quality"}
    assert action("measure-model").preview(spot.project, values)
    assert Requests(spot.project.state).open() == []
    assert action("measure-model").run(spot.project, values).startswith("Run quality:fraud@")
    assert [request.run_id.job for request in Requests(spot.project.state).open()] == ["quality fraud"]
    with pytest.raises(RequestError):
        action("measure-model").run(spot.project, {"model": MODEL, "what": "retrain"})


def test_only_the_models_of_the_person(spot: Sandbox) -> None:
    viewer = Viewer(name="web", right="admin", models=frozenset({"other"}))
    viewer.require_model({"model": "other"})
    with pytest.raises(ScopeError, match="may not see this model"):
        viewer.require_model({"model": MODEL})
    with pytest.raises(ScopeError, match="concerns all models"):
        viewer.require_model({"job": "retrain other"})
    readers = Readers(spot.repo, {})
    try:
        app = ControlRoom(name="p", readers=readers, sign_in=OnePerson(viewer)).app()
        for name in ("promote", "measure-model"):
            assert Pages(app).get(f"/actions/{name}?model={MODEL}&what=quality").status == 403
            form = {"token": "", "model": MODEL, "what": "quality", "word": MODEL}
            assert Pages(app).post(f"/actions/{name}", form).status == 403
    finally:
        readers.close()
    assert Requests(spot.project.state).open() == []
