"""A newcomer asks who answers, and how well; stops a rollout, approves a version, and asks for a measurement."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.control_room.tests.browser.room import running_room
from tests.browser.visitor import Visitor
from tests.worlds.command_line import done


@pytest.fixture(scope="module")
def rollout_url(fraud_project: Path) -> Iterator[str]:
    """The control room of a copy with a second version in its rollout; its tests may change it."""
    with tempfile.TemporaryDirectory(prefix="room-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_THREADS", "1")
        repo = Path(folder) / "fraud"
        shutil.copytree(fraud_project, repo, ignore=shutil.ignore_patterns("redis", "__pycache__"))
        done("train", "fraud", "--repo", repo)
        with running_room(repo) as url:
            yield url


def test_who_answers_is_found_from_the_menu(visitor: Visitor, room_url: str) -> None:
    with visitor.visit(room_url) as page:
        page.get_by_role("link", name="Models").click()
        page.get_by_role("link", name="fraud", exact=True).last.click()
        assert page.locator("h1").inner_text() == "Who answers for fraud, and how well?"
        assert "answers all requests" in page.locator("#rollout").inner_text()
        # Nobody has measured it: that is not good.
        assert page.locator("#quality .state.unknown").count() >= 1
        assert page.locator("#quality .state.good").count() == 0
        assert page.locator("#traffic svg").count() == 1
        assert page.locator("#training svg").count() >= 5
        page.locator("#versions").get_by_role("link", name="000001").click()
        assert page.locator("h1").inner_text() == "How good is fraud 000001?"
        page.get_by_text("Show the card").click()
        assert "# fraud 000001" in page.locator("#card pre").inner_text()


def test_a_rollout_is_stopped_and_its_version_approved(visitor: Visitor, rollout_url: str) -> None:
    with visitor.visit(f"{rollout_url}/models/fraud") as page:
        assert "000002 as shadow" in page.locator("#rollout").inner_text()
        page.get_by_role("button", name="Stop the rollout").click()
        assert "000001 for all" in page.locator("main").inner_text()
        assert "skewless rollback fraud" in page.locator(".command").inner_text()
        page.get_by_label("Reason").fill("scores look <b>wrong</b>")
        page.get_by_role("button", name="Stop the rollout").click()
        assert page.locator(".done").inner_text() == "Version 000001 receives all traffic again."
        assert "answers all requests" in page.locator("#rollout").inner_text()
        first = page.locator("#decisions tbody tr").first.inner_text()
        assert "rolled back" in first
        assert "scores look <b>wrong</b>" in first

        page.locator("#versions").get_by_role("link", name="000002").click()
        page.get_by_role("button", name="Approve").click()
        page.get_by_label("Your name").fill("Ada")
        page.get_by_label("Reason, or a link").fill("ticket 7")
        page.get_by_role("button", name="Approve").click()
        assert "Ada: ticket 7" in page.locator("#approvals").inner_text()

        page.get_by_role("button", name="Begin rollout").click()
        assert "000001, 000002 as shadow" in page.locator("main").inner_text()
        page.get_by_role("button", name="Begin rollout").click()
        assert "The rollout has begun" in page.locator(".done").inner_text()


def test_a_measurement_is_requested_without_script(visitor: Visitor, rollout_url: str) -> None:
    with visitor.visit(f"{rollout_url}/models/fraud-batch", script=False) as page:
        page.get_by_role("button", name="Measure quality now").click()
        assert "job 'quality fraud-batch'" in page.locator("main").inner_text()
        page.get_by_role("button", name="Measure now").click()
        assert "is requested" in page.locator(".done").inner_text()


def test_a_promotion_wants_the_name_of_the_model(visitor: Visitor, rollout_url: str) -> None:
    with visitor.visit(f"{rollout_url}/models/fraud/versions/000002") as page:
        page.get_by_role("button", name="Promote").click()
        assert "gate" in page.locator("main").inner_text()
        page.get_by_label("Type fraud to confirm").fill("other")
        page.get_by_role("button", name="Promote").click()
        assert "is not confirmed" in page.locator("main").inner_text()
