"""The demo walks through any project whose label table holds its test period."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds.payments_data import write_payments

ROOT = Path(__file__).parents[2]


def skewless(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
    command = [sys.executable, "-m", "skewless.cli", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)


@pytest.mark.timeout(240)
def test_the_last_line_of_the_demo_holds_its_facts(tmp_path: Path) -> None:
    repo = tmp_path / "project"
    write_payments(repo)
    done = skewless("demo", "--repo", str(repo))
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["predictions"] > 500
    # The races, the sample and the rows asked of the new version are replayed too.
    assert facts["replayed"] >= facts["predictions"] + 100 + 3 * 200
    assert facts["different_bits"] == facts["faces_different"] == 0
    assert facts["versions"] in ({"fraud": "000001"}, {"fraud": "000002"})
    assert 0.5 < facts["auc"] < 1
    # Outcomes alone train what a label table of the same predictions trains.
    assert facts["loop"]["rows"] > 200
    assert facts["loop"]["equal_rows"]
    assert facts["loop"]["equal_model"]
    assert set(facts["status"]) == {"card_days", "shop_risk"}
    assert facts["seconds"] > 0
    assert "all equal, bit for bit" in done.stderr
    assert not (repo / ".skewless" / "demo" / "server.json").exists()


def test_the_story_is_of_the_flights_alone(tmp_path: Path) -> None:
    repo = tmp_path / "project"
    write_payments(repo)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        skewless("demo", "--drift", "--repo", str(repo))
    said = json.loads(refused.value.stdout.splitlines()[-1]) if refused.value.stdout else refused.value.stderr
    assert "story_models.py" in str(said)
    assert "Traceback" not in refused.value.stderr
