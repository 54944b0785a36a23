"""Packages published to a real MLflow store: what is missing is added, aliases follow, training never waits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from plugins.mlflow.tests.memory_tracker import MemoryTracker
from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.traffic import TrafficPolicy
from skewless.operations.models.tracking import publish_if_set
from skewless.project import Project
from skewless_mlflow.publishing import open_tracker, publish
from tests.worlds.command_line import run
from tests.worlds.trained import MODEL, Sandbox

URI = "sqlite:///mlflow.db"


def tracked(place: Sandbox, uri: str = URI) -> Project:
    """Return the project with a tracking store; the test closes it."""
    project = Project(place.repo, clock=f"file:{place.repo}/.skewless/clock", threads=1, tracking_uri=uri)
    place.opened.append(project.close)
    return project


def test_what_the_store_lacks_is_added_once(place: Sandbox, mlflow_store: Path) -> None:
    shutil.copy(mlflow_store, place.repo / "mlflow.db")
    project = tracked(place)
    (first,) = publish(project, open_tracker(project))
    assert (first.model, first.published, first.aliases) == (MODEL, ["000001"], {"champion": "000001"})
    place.train()
    (second,) = publish(project, open_tracker(project))
    assert second.published == ["000002"]
    (third,) = publish(project, open_tracker(project))
    assert (third.published, third.aliases) == ([], {})
    assert "nothing to publish" in third.line()
    client = MlflowClient(tracking_uri=f"sqlite:///{place.repo}/mlflow.db")
    champion = client.get_model_version_by_alias(f"{place.model.plan.project}.{MODEL}", "champion")
    assert champion.tags["skewless.version"] == place.project.store.aliases.get(MODEL, "champion")
    metrics = client.get_run(str(champion.run_id)).data.metrics
    package = place.load(champion.tags["skewless.version"]).package
    assert metrics == {name: value for name, value in package.metrics.items() if value is not None}
    assert champion.tags["skewless.dataset"] == package.fingerprint["dataset"]


def test_a_dry_run_says_what_would_be_published_and_publishes_nothing(place: Sandbox) -> None:
    tracker = MemoryTracker()
    (report,) = publish(place.project, tracker, dry=True)
    assert (report.published, report.aliases) == (["000001"], {"champion": "000001"})
    assert tracker.runs[MODEL] == {}


def test_the_challenger_of_the_traffic_policy_comes_and_goes(place: Sandbox) -> None:
    place.train()
    traffic, tracker = place.project.store.traffic, MemoryTracker()
    canary = TrafficPolicy(number=1, phase="canary", champion="000001", challenger="000002", share=0.1)
    traffic.replace(MODEL, canary, expect=None)
    assert publish(place.project, tracker)[0].aliases == {"champion": "000001", "challenger": "000002"}
    traffic.replace(MODEL, replace(canary, phase="champion", challenger=None, share=0.0), expect=1)
    assert publish(place.project, tracker)[0].aliases == {"challenger": None}
    assert tracker.aliases(MODEL).keys() == {"champion"}


def test_a_package_that_was_tampered_with_is_left_out_and_named(place: Sandbox) -> None:
    place.train()
    (place.state / "packages" / MODEL / "000001" / "metrics.json").write_text("{}")
    (report,) = publish(place.project, MemoryTracker())
    assert report.published == ["000002"]
    assert report.skipped == {"000001": "has an altered file"}
    assert "000001 skipped" in report.line()


@pytest.mark.parametrize("tracker", ["mlflow", "nobody"])
def test_a_training_that_could_never_be_published_does_not_begin(
    place: Sandbox, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setattr("skewless.operations.models.tracking._TRACKER", tracker)
    before = place.project.packages.list_versions(MODEL)
    problem = "is not the address of an MLflow store" if tracker == "mlflow" else r"is not installed.*Fix: pip install"
    with pytest.raises(DefinitionError, match=problem):
        tracked(place, "file:///mlruns").train(MODEL)
    assert place.project.packages.list_versions(MODEL) == before


def test_a_store_that_is_away_is_said_and_caught_up_later(place: Sandbox, mlflow_store: Path) -> None:
    shutil.copy(mlflow_store, place.repo / "mlflow.db")
    away, back = tracked(place, "http://127.0.0.1:1"), tracked(place)
    error = publish_if_set(away, [MODEL])
    assert isinstance(error, StoreError)
    with pytest.raises(StoreError, match="does not answer"):
        open_tracker(away)
    assert publish_if_set(back, [MODEL]) is None
    assert publish(back, open_tracker(back))[0].published == []


def test_without_a_setting_nothing_is_published(place: Sandbox) -> None:
    assert publish_if_set(place.project, [MODEL]) is None
    with pytest.raises(DefinitionError, match="is not set"):
        open_tracker(place.project)


def test_training_by_command_goes_on_while_the_store_is_away(
    place: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mlflow_store: Path
) -> None:
    shutil.copy(mlflow_store, tmp_path / "elsewhere.db")
    monkeypatch.setenv("SKEWLESS_THREADS", "1")
    monkeypatch.setenv("SKEWLESS_TRACKING_URI", "http://127.0.0.1:1")
    said = run("train", "--repo", place.repo)
    assert said.stderr.count("not published: tracking server") == 1
    assert "fraud 000002" in said.stdout
    monkeypatch.setenv("SKEWLESS_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    told = run("track", "--repo", place.repo, "--dry-run")
    assert "published 000001, 000002" in told.stdout
    body = run("track", MODEL, "--repo", place.repo, "--json").body
    assert body["models"][0]["published"] == ["000001", "000002"]
