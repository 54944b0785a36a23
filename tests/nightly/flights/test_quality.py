"""The whole offline path learns as well as an independent baseline of the same features and split."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skewless import Project
from skewless.contract.clock import ManualClock, to_us
from skewless.training.train import train
from tests.memory_store import MemoryStore
from tests.worlds.packages import store_at

from .baseline import baseline_auc
from .conftest import NOW, REPO, Flights

ROUNDS = 80


@pytest.fixture(scope="module")
def project(flights: Flights, tmp_path_factory: pytest.TempPathFactory) -> Project:
    repo = tmp_path_factory.mktemp("quality") / "feature_repo"
    shutil.copytree(REPO, repo, ignore=shutil.ignore_patterns("data", ".skewless", "__pycache__"))
    (repo / "data").symlink_to(flights.data)
    project = Project(repo)
    project.__dict__ |= {"clock": ManualClock(to_us(NOW)), "online": MemoryStore()}
    project.apply()
    project.materialize(check=False)
    return project


@pytest.mark.soak
def test_auc_reaches_the_independent_baseline(project: Project, flights: Flights, tmp_path: Path) -> None:
    spec = replace(project.applied.model("delay-batch"), rounds=ROUNDS)
    dataset = project.training_set("delay-batch")
    trained = train(dataset, spec, store_at(tmp_path), threads=2, now_us=to_us(NOW))
    assert trained.metrics["auc"] >= baseline_auc(flights.data, rounds=ROUNDS) - 0.005
    assert trained.metrics["auc"] > 0.67


def test_every_flight_is_accounted_for(project: Project) -> None:
    dataset = project.training_set("delay-batch")
    assert dataset.counts == {
        "rows": 336_776,
        "without_label": 9_430,
        "not_yet_known": 0,
        "not_askable": 0,
        "used": 327_346,
        "contradicting": 0,
    }
    assert abs(dataset.labels.mean() - 0.237) < 0.0005
    missing = dataset.status["plane_facts"]["NOT_FOUND"] / len(dataset.labels)
    assert 0.14 < missing < 0.17
    assert np.all(np.diff(dataset.t) >= 0)
