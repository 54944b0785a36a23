"""`skewless serve` with two workers under a policy: both route alike, and their vitals add up."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from skewless.contract.traffic import TrafficPolicy, entity_position
from skewless.infra.models.rollout.counts import read_counts
from skewless.training.train import train
from tests.worlds.trained import MODEL, Sandbox, ask, serving
from tests.worlds.waiting import eventually

ONE, TWO = "000001", "000002"
POLICY = TrafficPolicy(number=0, phase="canary", champion=ONE, challenger=TWO, share=0.5, sticky=("card_id",), salt="s")


@pytest.mark.soak  # in make test, test_rollout_counts.py adds workers up, and one process routes
def test_workers_route_alike_and_count_together(place: Sandbox) -> None:
    project = place.project
    spec = replace(project.applied.model(MODEL), rounds=3)
    train(project.training_set(MODEL), spec, project.store, threads=1, now_us=place.now_us())
    with serving(place.repo, SKEWLESS_WORKERS="2") as server:
        number = project.store.traffic.replace(MODEL, POLICY, expect=None).number
        assert server.ask("POST", "/models/refresh", b"")[0] == 200
        found = [json.loads(server.ask("POST", "/predict", json.dumps({"rows": [row]}).encode())[2]) for row in ask(60)]
        assert [reply["version"] for reply in found] == [
            TWO if entity_position("s", [row["card_id"]]) < 0.5 else ONE for row in ask(60)
        ]
        expected = {version: sum(reply["version"] == version for reply in found) for version in (ONE, TWO)}

        def requests() -> dict[str, int]:
            return {v: one.requests for v, one in read_counts(project.state, MODEL, number).items()}

        eventually(requests, expected.__eq__)
    assert {v: one.rows for v, one in read_counts(project.state, MODEL, number).items()} == expected
    report = project.replay()
    assert (report.ok, report.compared) == (True, 60)
