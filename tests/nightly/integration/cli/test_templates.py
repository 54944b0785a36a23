"""Each template from ``init`` to a prediction, without an error or a warning; and its tests, which pytest runs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from skewless.infra.reads.online.private_server import PrivateServer
from tests.architecture.test_import_budget import OFFLINE, packages
from tests.nightly.integration.cli.test_command_imports import ONLINE, SLOW, loaded_by
from tests.worlds.command_line import done, run

CARD = {"card_id": 9_007_199_254_740_994, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}
ROWS = {
    "fraud": CARD,
    "delay": {"line": "line-03", "station": "station-05", "due": "2025-01-31T12:00:00Z"},
    "churn": {"customer_id": "c-0007"},
}
FLOORS = {"fraud": ("auc", 0.8), "delay": ("rmse", 9.0), "churn": ("auc", 0.7)}


@pytest.mark.long
@pytest.mark.parametrize("template", list(ROWS))
def test_a_template_leads_to_a_prediction(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("SKEWLESS_THREADS", "1")
    repo = tmp_path / "project"
    request.addfinalizer(PrivateServer(repo / ".skewless").stop)
    following = done("init", repo, "--template", template)["next"]
    for command in following:
        said = run(*shlex.split(command)[1:])
        assert said.code == 0, (command, said)
        assert "warn" not in (said.stdout + said.stderr).lower(), said
    metric, limit = FLOORS[template]
    value = done("versions", template, "--repo", repo)["versions"][0]["metrics"][metric]
    assert value < limit if metric == "rmse" else value > limit
    body = done("predict", template, "--repo", repo, "--row", json.dumps(ROWS[template]))
    features = body["predictions"][0]["features"]
    assert sum(value is not None for value in features.values()) >= len(features) - 2
    if template == "fraud":
        check_imports_of_proofs(repo, body["predictions"][0]["id"])
        drift_is_found(repo)


def check_imports_of_proofs(repo: Path, prediction: str) -> None:
    """A proof imports neither pandas nor a client; the last has all that the three have imported."""
    commands = (("why", prediction, "--no-proof"), ("why", prediction), ("replay",))
    assert packages(loaded_by(repo, dict(os.environ), *commands)[-1]) & (OFFLINE | SLOW | ONLINE) == set()


def drift_is_found(repo: Path) -> None:
    """The requests of the sample have amounts that the training data do not have."""
    done("predict", "fraud", "--repo", repo, "--in", repo / "data/requests.parquet", "--out", repo / "out.parquet")
    said = run("drift", "fraud", "--repo", repo, "--json")
    drifted = [item["name"] for item in said.body["features"] if item["drifted"]]
    assert "payment_time__amount_ratio" in drifted
    events = done("stream", "--repo", repo, "--replay", repo / "data/stream.parquet", "--until-idle")["sources"][0]
    assert (events["rejected"], events["duplicates"]) == (1, 6)
    assert events["accepted"] > 200


@pytest.mark.long
def test_the_tests_of_a_template_run(tmp_path: Path) -> None:
    repo = tmp_path / "project"
    done("init", repo)
    file = repo / "tests/test_features.py"
    wrong = file.read_text().replace("spent_1h=40.5", "spent_1h=41.5")
    file.with_name("test_wrong.py").write_text(wrong)
    failed = pytest_run(repo)
    assert failed.returncode == 1
    # Of the template's own tests, none fails, and of the others that with the wrong number.
    outcomes = [line.split()[:2] for line in failed.stdout.splitlines() if line.startswith(("PASSED", "FAILED"))]
    passed = Counter(test.partition("::")[0] for outcome, test in outcomes if outcome == "PASSED")
    assert passed["tests/test_features.py"] == passed["tests/test_wrong.py"] + 1 > 1
    assert [test.partition("::")[0] for outcome, test in outcomes if outcome == "FAILED"] == ["tests/test_wrong.py"]
    assert "card_now__spent_1h: expected 41.5, got 40.5" in failed.stdout
    assert "payment_id=b card_id=7 shop_id=shop-01 amount=30.5" in failed.stdout
    assert "feature_vector.py" not in failed.stdout  # the traceback ends in the user's own test


def pytest_run(repo: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest in a project as a user does, with this plugin alone."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-m", "pytest", "-q", "-rA", "-p", "skewless_testing.plugin"]
    return subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, check=False)
