"""The story of drift while it runs, followed in a browser: what happens is on the page where a person would look."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page

from plugins.control_room.tests.browser.room import running_room
from skewless.contract.errors import SkewlessError
from skewless.infra.platform.alerts.alerts import Alerts
from skewless.project import Project
from skewless_demo.story import FOLDER
from tests.browser.visitor import Visitor
from tests.worlds.waiting import eventually

ROOT = Path(__file__).parents[3]
REPO = ROOT / "feature_repo"
DAYS = 19
MODEL = "delay"
LONGEST_S = 5.0
_PAUSE_S = 0.25
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_800)]


@contextmanager
def running_story(repo: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo with drift, in a process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
    load = [sys.executable, "-m", "skewless_demo.flights", "--repo", str(repo)]
    subprocess.run(load, check=True, cwd=ROOT, env=environment, capture_output=True)
    words = ["-m", "skewless.cli", "demo", "--drift", "--days", str(DAYS), "--repo", str(repo)]
    with (
        (repo.parent / "demo.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=log, stderr=log, text=True
        ) as demo,
    ):
        try:
            yield demo
        finally:
            demo.terminate()


def facts_of(project: Project) -> dict[str, str]:
    """Return what a person must see now: a text per fact, and the path of its page."""
    found = {item.alert.message: "/" for item in Alerts(project.state).records() if item.is_open}
    for model in project.packages.list_models():
        policy = project.store.traffic.get(model)
        if policy is not None:
            found[policy.reason] = f"/models/{model}"
    return found


def shows(page: Page, text: str) -> bool:
    """Return whether a reader finds a text on a page as it is; nobody reloads it."""
    return " ".join(text.split())[:60] in " ".join(page.inner_text("main").split())


def test_the_story_appears_where_a_person_would_look(tmp_path: Path) -> None:
    repo = tmp_path / "flights"
    shutil.copytree(REPO, repo, ignore=shutil.ignore_patterns("data", ".skewless", "__pycache__"))
    story = repo / FOLDER
    with running_story(repo) as demo:
        eventually((story / "skewless.yaml").is_file)  # the demo plays in a project of its own
        with (
            running_room(story) as url,
            Visitor.open() as visitor,
            visitor.visit(url) as now,
            visitor.visit(f"{url}/models/{MODEL}") as model,
            Project(story) as project,
        ):
            delays = follow(demo, project, {"/": now, f"/models/{MODEL}": model})
    assert demo.returncode == 0, (tmp_path / "demo.log").read_text()[-2_000:]
    told = [f"{seconds:.1f} s: {text}" for text, seconds in delays.items()]
    assert any("breached" in text for text in delays), told
    assert max(delays.values()) <= LONGEST_S, told


def follow(demo: subprocess.Popen[str], project: Project, pages: dict[str, Page]) -> dict[str, float]:
    """Return, per fact, the seconds from its first sight in the database to its sight on the page.

    A fact that ends before anybody could see it, within 5 s, does not count.
    """
    begun: dict[str, float] = {}
    delays: dict[str, float] = {}
    while demo.poll() is None:
        now_s = time.monotonic()
        try:
            facts = {text: path for text, path in facts_of(project).items() if path in pages}
        except SkewlessError:  # the demo has not begun
            facts = {}
        for text in [*begun]:
            if text not in facts:
                if now_s - begun[text] > LONGEST_S:
                    delays[text] = now_s - begun[text]
                del begun[text]
        for text, path in facts.items():
            if text in delays:
                continue
            begun.setdefault(text, now_s)
            if shows(pages[path], text):
                delays[text] = time.monotonic() - begun.pop(text)
        pages["/"].wait_for_timeout(_PAUSE_S * 1_000)
    return delays
