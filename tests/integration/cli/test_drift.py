"""``skewless drift``, ``freshness`` and ``alerts``: what they answer, and their exit codes."""

from __future__ import annotations

from pathlib import Path

from skewless.infra.platform.alerts.alerts import Alert, Alerts
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.command_line import done, fingerprint, run


def test_drift_answers_with_every_feature_and_a_dry_run_keeps_nothing(unasked: Path) -> None:
    before = fingerprint(unasked)
    body = done("drift", "--repo", unasked, "--window", "2d", "--dry-run")
    assert (body["verdict"], body["rows"], body["model"]) == ("too_few_rows", 0, "fraud")
    assert len(body["features"]) > 3
    assert fingerprint(unasked) == before


def test_a_model_or_length_that_is_none_is_refused(walked: Path) -> None:
    assert run("drift", "other", "--repo", walked).code == 6
    assert run("drift", "--repo", walked, "--window", "soon").code == 6


def test_freshness_says_when_a_view_is_late(walked: Path) -> None:
    body = done("freshness", "--repo", walked)
    assert {view["view"] for view in body["views"]} == {"card_days", "shop_risk"}
    late = any(view["late"] for view in body["views"])
    assert run("freshness", "--repo", walked, "--check").code == (5 if late else 0)
    assert run("freshness", "nothing", "--repo", walked).code == 6


def test_alerts_are_shown_and_closed_by_hand(new: Path) -> None:
    assert done("alerts", "--repo", new) == {"alerts": []}
    Alerts(ProjectState(new / ".skewless")).send(Alert(name="a", severity="info", subject="s", message="m", at_us=1))
    (shown,) = done("alerts", "--repo", new)["alerts"]
    assert (shown["number"], shown["alert"], shown["since"]) == (1, "a", "1970-01-01T00:00:00+00:00")
    assert done("alerts", "--resolve", "1", "--repo", new) == {"alerts": []}
    assert done("alerts", "--all", "--repo", new)["alerts"][0]["resolved"] is not None
    assert run("alerts", "--resolve", "1", "--repo", new).code == 6
