"""The demo of a project with several models: each is asked, and judged by, the rows of its own label table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.worlds.windowed import CARRIERS, DAY, HOUR, NOW, STAMP, write_repo

SECOND = 1_000_000
ROOT = Path(__file__).parents[3]
FLEETS = (950.0, 880.5, 3.0)
HEADER = """\
from datetime import timedelta

from skewless.contract.labels import LabelSource
from skewless.contract.labels import Outcomes
from skewless.contract.sinks import RedisStreamSink
from skewless.contract.decisions import DecisionStream
from skewless.contract.spec import Gate, ModelSpec, Split


def labels(name, label):
    return LabelSource(path=f"data/{name}.parquet", event_time="asked_at", known_time="known_at", label=label)


FEW = {"min_data_in_leaf": 2, "num_leaves": 4}
"""
LATE = """ModelSpec(
    name="late", service="air", labels=labels("labels", "late"), algorithm="lightgbm",
    split=Split(test=timedelta(hours=6)), params=FEW, rounds=5{more},
)"""
FLEET = """ModelSpec(
    name="fleet", service="plain", labels=labels("fleets", "fleet"), algorithm="lightgbm", task="regression",
    split=Split(test=timedelta(hours=3)), params=FEW, rounds=60, gate=Gate(metric="rmse"),
)"""
KIND = """ModelSpec(
    name="kind", service="plain", labels=labels("fleets", "kind"), algorithm="lightgbm", task="multiclass",
    classes=("many", "some", "few"), split=Split(test=timedelta(hours=3)), params=FEW, rounds=5,
    gate=Gate(metric="accuracy"),
)"""
CHANCE = """ModelSpec(
    name="chance", service="plain", labels=labels("fleets", "coin"), algorithm="lightgbm",
    split=Split(test=timedelta(hours=3)), params=FEW, rounds=5, gate=Gate(floor=0.99),
)"""


SEEN = """ModelSpec(
    name="seen", service="air", labels=Outcomes(known="declared", table=LabelSource(
        path="data/seen/history", event_time="asked_at", known_time="known_at", label="late",
    )), algorithm="lightgbm", split=Split(test=timedelta(hours=3)), params=FEW, rounds=5,
    gate=Gate(metric="log_loss", tolerance=9, beat_baseline=False), retrain="0 4 * * *",
)"""
LANDED = """ModelSpec(
    name="landed", service="plain", labels=Outcomes(known="declared", table=LabelSource(
        path="data/landed/history", event_time="landed_at", known_time="known_at", label="late",
    )), algorithm="lightgbm", split=Split(test=timedelta(hours=2)), params=FEW, rounds=5,
    gate=Gate(metric="log_loss", tolerance=9, beat_baseline=False), retrain="0 4 * * *",
)"""
STREAM = """
DECISIONS = [
    DecisionStream(
        name="landings", source="landings", model="landed",
        sinks=[RedisStreamSink(name="landed", stream="landed")],
    ),
]
"""


def write_outcomes(folder: Path, table: pa.Table, time: str, begin: int) -> pa.Table:
    """Write label rows of two tables, the live one from an hour before a time on; return the live rows.

    A label is known half an hour after its time.
    """
    times = table[time].cast(pa.int64()).to_numpy()
    labels = table.append_column("known_at", pa.array(times + HOUR // 2).cast(STAMP))
    is_live = times >= begin - HOUR
    for name, rows in (("history", ~is_live), ("live", is_live)):
        (folder / name).mkdir(parents=True)
        pq.write_table(labels.filter(pa.array(rows)), folder / name / "all.parquet")
    return table.filter(pa.array(is_live))


def decide_landings(repo: Path, begin: int) -> int:
    """Let a model decide on the landings from an hour before a time on; return the number of live landings."""
    table = pq.read_table(repo / "data/landings.parquet").select(["carrier", "arr_delay", "landed_at"])
    is_late = table["landed_at"].cast(pa.int64()).to_numpy() // SECOND % 7 > 2
    labelled = table.append_column("late", pa.array(is_late).cast("int8"))
    live = write_outcomes(repo / "data/landed", labelled, "landed_at", begin).select(table.column_names).to_pylist()
    payloads = [json.dumps({**row, "landed_at": row["landed_at"].isoformat()}).encode() for row in live]
    messages = {"at": [row["landed_at"] for row in live], "key": [row["carrier"] for row in live], "payload": payloads}
    (repo / "data/live").mkdir()
    pq.write_table(pa.table(messages), repo / "data/live/all.parquet")
    with (repo / "models.py").open("a") as file:
        file.write(STREAM)
    return len(live)


def make(repo: Path, *models: str) -> Path:
    """Write the project with windows, a service without any, and a second label table of 200 other moments."""
    write_repo(repo)
    (repo / "skewless.yaml").write_text("threads: 1\n")
    with (repo / "definitions.py").open("a") as file:
        file.write('plain = FeatureService(name="plain", features=[facts])\n')
    (repo / "models.py").write_text(f"{HEADER}MODELS = [{', '.join(models)}]\n")
    n = 200
    asked = pa.array([NOW - DAY + i * 430 * SECOND for i in range(n)], pa.int64()).cast(STAMP)
    table = pa.table(
        {
            "carrier": [CARRIERS[i % 3] for i in range(n)],
            "asked_at": asked,
            "known_at": asked,
            "fleet": [FLEETS[i % 3] for i in range(n)],
            "kind": [i % 3 for i in range(n)],
            "coin": np.random.default_rng(3).integers(0, 2, n),
        }
    )
    pq.write_table(table, repo / "data/fleets.parquet")
    return repo


def demo(repo: Path) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the facts, which are empty where it failed, and what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
    command = [sys.executable, "-m", "skewless.cli", "demo", "--repo", str(repo)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, json.loads((done.stdout.splitlines() or ["{}"])[-1]), done.stderr


def later_than(repo: Path, name: str, label: str, moment: int) -> tuple[int, float]:
    """Return how many rows of a label table are of later times, and the mean of their label."""
    table = pq.read_table(repo / f"data/{name}.parquet")
    later = table["asked_at"].cast(pa.int64()).to_numpy() >= moment
    return int(later.sum()), float(table[label].to_numpy()[later].mean())


def check_decisions(facts: dict[str, Any], live_events: int) -> None:
    """One model decides on events: the outcomes of its decisions train its next version, which has the last ones."""
    decided = facts["decisions"]["landings"]
    assert facts["events"]["landings"]["sent"] <= decided["decided"] <= live_events
    assert decided["unmatched"] == 0
    assert set(decided["latest"]) == {"000002"}
    assert decided["proven"] == [True]
    assert decided["outcomes"] > 100


# In make test, without the processes of a stream, which test_feed.py feeds in this one; make soak has all: a model that
# decides on events, one of several classes, and three predictions of each moment.
@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.soak)])
def test_every_model_is_asked_and_judged_by_its_own_rows(tmp_path: Path, times: int) -> None:
    more = (KIND, LANDED) if times > 1 else ()
    repo = make(tmp_path / "p", LATE.format(more=""), FLEET, CHANCE, SEEN, *more)
    last = NOW - DAY + 899 * 96 * SECOND
    begin = (last - 6 * HOUR) // HOUR * HOUR
    live_events = decide_landings(repo, begin) if more else 0
    labels = pq.read_table(repo / "data/labels.parquet").select(["carrier", "asked_at", "late"])
    write_outcomes(repo / "data/seen", pa.concat_tables([labels] * times).sort_by("asked_at"), "asked_at", begin)
    code, facts, said = demo(repo)
    assert code == 0, said
    late, late_mean = later_than(repo, "labels", "late", begin)
    fleet, fleet_mean = later_than(repo, "fleets", "fleet", begin)
    asked_of_kinds = {"kind": fleet} if more else {}
    assert facts["asked"] == {"late": late, "fleet": fleet, "seen": times * late} | asked_of_kinds
    assert facts["predictions"] == sum(facts["asked"].values()) > 500
    # The races, the sample and the rows asked of the new version are replayed too.
    assert facts["replayed"] >= facts["predictions"] + 100 + 3 * 200
    live = facts["live"]
    assert live["late"]["base_rate"] == facts["base_rate"] == pytest.approx(late_mean)
    assert live["fleet"]["base_rate"] == pytest.approx(fleet_mean)
    assert live["fleet"]["rmse"] < 40
    assert facts["different_bits"] == facts["faces_different"] == facts["parity_mismatches"] == 0
    # Nobody retrains them, and one was never promoted.
    first = dict.fromkeys(("late", "fleet", *asked_of_kinds), "000001")
    learners = ("seen", "landed") if more else ("seen",)
    assert facts["versions"] == first | dict.fromkeys(learners, "000002")
    if more:
        check_decisions(facts, live_events)
    # Outcomes alone, of requests and of events, train what a label table of the same predictions trains.
    assert facts["loop"].keys() == {*learners}
    for loop in facts["loop"].values():
        assert (loop["equal_rows"], loop["equal_model"], loop["equal_quality"]) == (True, True, True)
    assert facts["loop"]["seen"]["rows"] > 70 * times
    assert (0.5 if more else 0) < facts["auc"] < 1  # without events, windows have nothing to say of the last hours
    assert set(facts["status"]) == {"carrier_now", "facts"}
    assert facts["seconds"] > 0
    assert "all equal, bit for bit" in said
    assert not (repo / ".skewless/demo/server.json").exists()
    assert "chance has no champion, so it is not served" in said
    assert "late: has no schedule and no trigger, so it is not retrained" in said
    # The log lines are in the file that the first line names.
    assert said.startswith("logs: ")
    assert "[info" not in said
    assert "[warning" not in said
    assert (repo / ".skewless/demo/demo.log").is_file()
    assert facts["events_rejected_beyond_clock_s"] == 10
    assert "more than 10 s later than this clock is quarantined" in said


@pytest.mark.soak
def test_a_model_with_a_schedule_is_retrained_beside_one_without(tmp_path: Path) -> None:
    repo = make(tmp_path / "p", FLEET, LATE.format(more=', retrain="0 4 * * *"'))
    (repo / "skewless.yaml").write_text('threads: 1\nvalidate_cron: "off"\n')
    code, facts, said = demo(repo)
    assert code == 0, said
    assert set(facts["versions"]) == {"fleet", "late"}
    assert "retrain late: done" in said or "retrain late: failed" in said
    assert "fleet: has no schedule" in said
    assert "validate: " not in said


@pytest.mark.soak
def test_a_demo_without_a_model_that_passes_says_so(tmp_path: Path) -> None:
    code, _, said = demo(make(tmp_path / "p", CHANCE))
    assert code == 5
    assert "has no model that passed its gate (got 'chance')" in said


@pytest.mark.soak
def test_a_demo_without_models_or_labels_says_so(tmp_path: Path) -> None:
    code, _, said = demo(make(tmp_path / "none"))
    assert (code, "has no model" in said) == (2, True)
    repo = make(tmp_path / "empty", CHANCE)
    pq.write_table(pq.read_table(repo / "data/fleets.parquet").slice(0, 0), repo / "data/fleets.parquet")
    code, _, said = demo(repo)
    assert (code, "label table of model 'chance': has no row" in said) == (4, True)
