"""Definitions, decision streams with their sinks, and lists change by commands alone: no request reaches them."""

from __future__ import annotations

import re
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.training.scheduling.job import list_jobs
from skewless_control_room.pages import ACTIONS

ROOT = Path(__file__).parents[2]
# What writes an applied plan or a list.
WRITERS = re.compile(r"\b(save_applied|hold_apply|Planner|planner|EntityLists|ProjectLists|project\.(apply|lists))\b")
# The code that answers requests, shows pages, and runs jobs and streams.
ANSWERING = (
    "serving",
    "plugins/control_room/src",
    "infra/platform/jobs",
    "infra/ingest/streams",
    "training/scheduling",
)


def test_no_code_that_answers_requests_writes_a_plan_or_a_list() -> None:
    files = [path for folder in ANSWERING for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert [path for path in files if WRITERS.search(path.read_text())] == []


def test_no_action_of_the_control_room_and_no_job_applies_or_changes_a_list() -> None:
    assert {action.name for action in ACTIONS} == {
        *("resolve-alert", "promote", "roll-back", "begin-rollout", "advance-rollout", "stop-rollout", "approve"),
        *("measure-model", "erase", "run-now", "retry-run", "cancel-run", "accept-rows", "accept-events"),
    }
    commands = {job.words[0] for job in list_jobs(Settings(), (), lambda _: False)}
    assert commands
    assert commands & {"apply", "lists"} == set()
