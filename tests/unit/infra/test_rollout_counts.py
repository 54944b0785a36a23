"""What servers counted is added up, by version, under one policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skewless.contract.score_differences import ScoreDifferences
from skewless.infra.models.rollout.counts import (
    Histogram,
    PolicyCounts,
    RolloutCounts,
    delete_old_counts,
    read_counts,
    read_earlier_counts,
    score_edges,
    write_counts,
    write_earlier_counts,
)
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState


def counted(requests: int, at_us: int) -> RolloutCounts:
    return RolloutCounts(
        requests=requests,
        failed=1,
        rows=2 * requests,
        latency=Histogram((0.1, 1.0), (requests, 0, 0)),
        scores=Histogram((0.5,), (0, 2 * requests)),
        missing=3,
        values=20,
        by_status={"cards": {"PRESENT": requests}, "views": {"STALE": 1}},
        differences=ScoreDifferences(rows=1, total=0.25, pairs=np.array([[0.5, 0.75]])),
        at_us=at_us,
    )


@pytest.fixture
def state(tmp_path: Path) -> ProjectState:
    return ProjectState(tmp_path / "state")


def test_servers_are_added_up(state: ProjectState) -> None:
    write_counts(state, "a-1", {"late": PolicyCounts(3, {"000001": counted(10, 5), "000002": counted(1, 5)})})
    write_counts(state, "b-1", {"late": PolicyCounts(3, {"000001": counted(20, 9)})})
    found = read_counts(state, "late", 3)
    assert sorted(found) == ["000001", "000002"]
    both = found["000001"]
    assert (both.requests, both.failed, both.rows, both.missing, both.values, both.at_us) == (30, 2, 60, 6, 40, 9)
    assert both.latency == Histogram((0.1, 1.0), (30, 0, 0))
    assert both.scores == Histogram((0.5,), (0, 60))
    assert both.by_status == {"cards": {"PRESENT": 30}, "views": {"STALE": 2}}
    assert (both.differences.rows, both.differences.mean) == (2, 0.25)
    assert both.differences.pairs.tolist() == [[0.5, 0.75]] * 2
    assert found["000002"].requests == 1


def test_another_policy_or_model_does_not_count(state: ProjectState) -> None:
    assert read_counts(state, "late", 3) == {}
    assert not state.folder.exists()
    write_counts(state, "a-1", {"late": PolicyCounts(3, {"000001": counted(10, 5)})})
    assert read_counts(state, "late", 4) == {}
    assert read_counts(state, "other", 3) == {}


def test_counts_of_ended_policies_are_deleted(state: ProjectState) -> None:
    write_counts(state, "a-1", {"late": PolicyCounts(3, {}), "other": PolicyCounts(1, {})})
    write_counts(state, "b-1", {"late": PolicyCounts(2, {})})
    write_counts(state, "c-1", {"late": PolicyCounts(3, {})})
    write_counts(state, "c-1", {})
    delete_old_counts(state, {"late": 3})
    assert list(Documents(state.database, "rollout_counts").list_all()) == ["a-1"]


def test_earlier_counts_are_apart_from_the_servers(state: ProjectState) -> None:
    write_earlier_counts(state, "older", "late", PolicyCounts(3, {"000001": counted(10, 5)}))
    write_earlier_counts(state, "newer", "late", PolicyCounts(3, {"000001": counted(20, 6)}))
    assert read_earlier_counts(state, "older", "late", 3)["000001"].requests == 10
    assert read_earlier_counts(state, "newer", "late", 3)["000001"].requests == 20
    assert read_earlier_counts(state, "newer", "late", 4) == read_earlier_counts(state, "newer", "other", 3) == {}
    assert read_counts(state, "late", 3) == {}


@pytest.mark.parametrize(("at", "end"), [(0.5, 1.0), (0.9, 2.0), (1.0, float("inf"))])
def test_a_quantile_is_the_end_of_its_bucket(at: float, end: float) -> None:
    assert Histogram((1.0, 2.0), (5, 4, 1)).quantile(at) == end


def test_edges_of_scores_rise_and_cover_probabilities_and_amounts() -> None:
    edges = np.array(score_edges())
    assert (np.diff(edges) > 0).all()
    assert ((edges > 0.5) & (edges <= 1)).sum() >= 20
    assert edges[0] <= -1e9
    assert edges[-1] >= 1e9
