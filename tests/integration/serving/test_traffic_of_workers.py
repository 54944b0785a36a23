"""`skewless serve` with two workers under a policy: both route alike, and their vitals add up."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

from skewless.contract.traffic import TrafficPolicy, place
from skewless.infra.rollout.traffic import Traffic
from skewless.infra.rollout.vitals import read_vitals
from skewless.training.train import train
from tests.servers.prediction import PredictionServer
from tests.worlds.trained import MODEL, ask, make_project, opened

ONE, TWO = "000001", "000002"
POLICY = TrafficPolicy(number=0, phase="canary", champion=ONE, challenger=TWO, share=0.5, sticky=("card_id",), salt="s")


def test_workers_route_alike_and_count_together(tmp_path: Path) -> None:
    repo = tmp_path / "p"
    make_project(repo)
    with opened(repo) as at:
        project = at.project
        train(
            project.dataset(MODEL),
            replace(project.applied.model(MODEL), rounds=3),
            project.store,
            threads=1,
            now_us=at.now_us(),
        )
        project.materialize(check=False)
        server = PredictionServer.start(
            repo, SKEWLESS_PORT="0", SKEWLESS_WORKERS="2", SKEWLESS_CLOCK=f"file:{repo}/.skewless/clock"
        )
        number = Traffic(project.packages).replace(MODEL, POLICY, expect=None).number
        assert server.ask("POST", "/models/refresh", b"")[0] == 200
        found = [json.loads(server.ask("POST", "/predict", json.dumps({"rows": [row]}).encode())[2]) for row in ask(60)]
        assert [reply["version"] for reply in found] == [
            TWO if place("s", [row["card_id"]]) < 0.5 else ONE for row in ask(60)
        ]
        expected = {version: sum(reply["version"] == version for reply in found) for version in (ONE, TWO)}
        deadline = time.monotonic() + 30
        while {v: one.requests for v, one in read_vitals(project.state, MODEL, number).items()} != expected:
            assert time.monotonic() < deadline, read_vitals(project.state, MODEL, number)
            time.sleep(0.1)
        server.stop()
        assert {v: one.rows for v, one in read_vitals(project.state, MODEL, number).items()} == expected
        report = project.replay()
        assert (report.ok, report.compared) == (True, 60)
