"""The demo walks through any project whose label table holds its test period."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.worlds.command_line import run
from tests.worlds.edits import edit
from tests.worlds.payments_data import write_payments

DAY = 86_400_000_000
ROOT = Path(__file__).parents[3]


def skewless(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
    command = [sys.executable, "-m", "skewless.cli", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)


def learn_from_outcomes(repo: Path) -> None:
    """Let the model learn from outcomes: its label table ends where the test period begins, which has a table too."""
    table = pq.read_table(repo / "data/payments.parquet")
    times = table["paid_at"].cast(pa.int64()).to_numpy()
    is_live = times >= times.max() - 7 * DAY
    for name, rows in (("history", ~is_live), ("live", is_live)):
        (repo / "data/payments" / name).mkdir(parents=True)
        pq.write_table(table.filter(pa.array(rows)), repo / "data/payments" / name / "all.parquet")
    edit(repo, "from skewless import Gate, ", "from skewless import Gate, Outcomes, ", file="models.py")
    edit(
        repo,
        'labels=LabelSource(path="data/payments.parquet", ',
        'labels=Outcomes(known="declared", table=LabelSource(path="data/payments/history", ',
        file="models.py",
    )
    edit(repo, 'label="fraud"),', 'label="fraud")),', file="models.py")
    edit(repo, "test=timedelta(days=7)", "test=timedelta(days=3)", file="models.py")


# In make test, tests/integration/demo/test_models.py has the same facts, of a smaller project with more models.
@pytest.mark.soak
def test_the_last_line_of_the_demo_holds_its_facts(tmp_path: Path) -> None:
    repo = tmp_path / "project"
    write_payments(repo)
    learn_from_outcomes(repo)
    done = skewless("demo", "--repo", str(repo))
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["predictions"] > 500
    # The races, the sample and the rows asked of the new version are replayed too.
    assert facts["replayed"] >= facts["predictions"] + 100 + 3 * 200
    assert facts["different_bits"] == facts["faces_different"] == 0
    assert facts["versions"] in ({"fraud": "000001"}, {"fraud": "000002"})
    assert 0.5 < facts["auc"] < 1
    # Outcomes alone train what a label table of the same predictions trains.
    assert facts["loop"]["fraud"]["rows"] > 200
    assert facts["loop"]["fraud"]["equal_rows"]
    assert facts["loop"]["fraud"]["equal_model"]
    assert facts["loop"]["fraud"]["equal_quality"]
    assert set(facts["status"]) == {"card_days", "shop_risk"}
    assert facts["seconds"] > 0
    assert "all equal, bit for bit" in done.stderr
    assert not (repo / ".skewless" / "demo" / "server.json").exists()


def test_the_story_is_of_the_flights_alone(tmp_path: Path) -> None:
    repo = tmp_path / "project"
    write_payments(repo)
    said = run("demo", "--drift", "--repo", repo)
    assert said.code != 0
    assert "story_models.py" in said.stdout + said.stderr
    assert "Traceback" not in said.stdout + said.stderr
