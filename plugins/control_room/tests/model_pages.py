"""The pages about models, as tests read them."""

from __future__ import annotations

import json

from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import Run, RunId, State
from skewless.project import Project
from skewless_control_room.access import Viewer
from skewless_control_room.actions import Action
from skewless_control_room.page import Known, Page, Query
from skewless_control_room.pages import ACTIONS
from skewless_control_room.pages.model import ModelPage, read_model
from skewless_control_room.pages.models import ModelList, ModelRow, read_models
from skewless_control_room.render import render
from tests.worlds.trained import MODEL, Sandbox


def known(part: object) -> ModelList:
    assert isinstance(part, Known)
    assert isinstance(part.value, ModelList)
    return part.value


def first_row(project: Project) -> ModelRow:
    return known(read_models(project, Query()).models).rows[0]


def page_of(project: Project, **values: str) -> ModelPage:
    return read_model(project, Query(path={"model": MODEL}, values=values))


def html(page: Page, data: object) -> str:
    values = {"viewer": Viewer(name="local", right="admin"), "page": data, "title": page.question, "now": 0}
    values |= {"menu": [], "here": "", "url": "", "searched": "", "done": "", "took_ms": 0, "live_s": 0, "json_url": ""}
    actions = {action.name.replace("-", "_"): action for action in ACTIONS}
    return render(page.template, {**values, "project_name": "p", "actions": actions})


def store_run(place: Sandbox, job: str, outputs: dict[str, object], error: str | None = None) -> None:
    """Let the scheduler have run a job now."""
    ledger, now = Ledger(place.project.state), place.now_us()
    token = ledger.latest_token() + 1
    ledger.begin_term(token, "test", now)
    run = Run(id=RunId(job=job, tick_us=now), cause="test", token=token, started_us=now)
    ledger.start(run)
    state: State = "done" if error is None else "failed"
    ledger.end(run, state, now, token=token, outputs=json.loads(json.dumps(outputs)), error=error)


def action(name: str) -> Action:
    return next(item for item in ACTIONS if item.name == name)
