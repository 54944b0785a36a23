"""A deed of the rollout controller under the eyes of ``kills``."""

from __future__ import annotations

from pathlib import Path

import skewless.training.rollout.evidence
import skewless.training.rollout.plan  # noqa: F401 - what a deed imports is loaded once, before the forks
from skewless.infra.platform.alerts.alerts import Alerts
from skewless.infra.platform.telemetry.logger import configure_logging
from skewless.operations.models import rollout
from skewless.project import Project
from tests.reliability.kills import Steps
from tests.worlds.rollouts import NEW
from tests.worlds.trained import MODEL, open_project


def do(project: Project, deed: str) -> None:
    """Do one deed as a command or the scheduler does."""
    if deed == "begin":
        rollout.begin_rollout(project, MODEL, NEW)
    elif deed == "rollback":
        rollout.rollback(project, MODEL, reason="by hand")
    else:
        rollout.step_rollout(project, MODEL)


def act(steps: Steps, order: dict[str, str]) -> None:
    """Do one deed."""
    configure_logging()
    with open_project(Path(order["repo"])) as project:
        steps.watch(project.state.folder)
        steps.wrap(Alerts, "send", lambda *_: "store-alert")
        do(project, order["deed"])
