"""The story of drift: each thing that goes wrong is met by what is there for it, and every answer can be proven."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
REPO = ROOT / "feature_repo"
# Three days after the second version is champion in a load of any date: all times move by whole weeks.
DAYS = 19

Facts = dict[str, Any]
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_800)]


def python(*words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:] + done.stdout[-2_000:]
    return done.stdout


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    repo = tmp_path_factory.mktemp("story") / "flights"
    shutil.copytree(REPO, repo, ignore=shutil.ignore_patterns("data", ".skewless", "__pycache__"))
    python("-m", "skewless_demo.flights", "--repo", str(repo))
    said = python("-m", "skewless.cli", "demo", "--drift", "--days", str(DAYS), "--repo", str(repo))
    found: Facts = json.loads(said.splitlines()[-1])
    return found


def events(facts: Facts, kind: str) -> list[Facts]:
    return [event for event in facts["events"] if event["kind"] == kind]


def test_the_gate_stops_a_change_of_unit_and_lets_the_correction_pass(facts: Facts) -> None:
    (stopped,), (repaired,) = events(facts, "stopped"), events(facts, "repaired")
    injected = events(facts, "injected")
    assert injected[0]["at"] < stopped["at"] < injected[1]["at"] <= repaired["at"]
    assert "'pressure'" in stopped["text"]
    # Hectopascals: nothing that was measured in inches (some 30) has reached the model.
    low, high = facts["spoilt_feature"]
    assert 900 < low < high < 1_100


def test_a_new_season_retrains_the_model_and_the_version_takes_over_in_steps(facts: Facts) -> None:
    cause, retrained = events(facts, "cause")[0], events(facts, "retrain")[0]
    assert cause["facts"]["name"] in {"drift", "quality"}
    assert cause["at"] <= retrained["at"]
    assert retrained["text"].startswith("trigger: ")
    phases = [(event["facts"]["phase"], event["facts"]["share"]) for event in events(facts, "traffic")][:4]
    assert phases == [("shadow", 0.0), ("canary", 0.1), ("canary", 0.5), ("champion", 0.0)]
    first, second = events(facts, "alias")
    assert (first["facts"]["version"], second["facts"]["version"]) == ("000001", "000002")
    assert retrained["at"] < second["at"]


def test_a_bad_challenger_is_rolled_back_by_a_guardrail(facts: Facts) -> None:
    sent = events(facts, "injected")[2]
    after = [event for event in events(facts, "traffic") if event["facts"]["challenger"] == "000003"]
    assert after
    last = events(facts, "traffic")[-1]
    assert last["at"] > sent["at"]
    assert last["facts"]["phase"] == "champion"
    assert last["facts"]["champion"] == "000002"
    assert "breached" in last["text"]


def test_no_job_failed_and_housekeeping_ran_every_day(facts: Facts) -> None:
    assert [name for name in facts["runs"] if name.endswith((" failed", " lost"))] == []
    assert facts["runs"]["housekeeping done"] == DAYS


def test_every_answer_of_every_version_is_proven(facts: Facts) -> None:
    assert facts["different_bits"] == 0
    # Answers of shadows are in the log besides.
    assert facts["replayed"] > facts["predictions"] > 10_000
    assert set(facts["quality"]) == {"delay", "delay-alone"}
    assert all(week["log_loss"] < 0.7 for weeks in facts["quality"].values() for week in weeks)
