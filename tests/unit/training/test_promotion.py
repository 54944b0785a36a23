"""The alias moves only if the gate allows, and every decision is kept with its evidence."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import (
    ConflictError,
    DefinitionError,
    PackageError,
    SkewlessError,
    SourceError,
    StoreError,
)
from skewless.contract.lifecycle import Rollout
from skewless.contract.spec import Gate, ModelSpec
from skewless.infra.models.runtimes.port import Scores
from skewless.training import promotion
from skewless.training.decision import Decision
from skewless.training.promotion import CHAMPION, promote
from tests.unit.training.only_test_rows import RIGHT, N, make_spec, only_test_rows, wrong_in
from tests.worlds.decisions import last_decision
from tests.worlds.packages import store_at

CARRIERS = {"carrier": ["aa" if row < N // 2 else "bb" for row in range(N)]}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for version in ("000001", "000002"):
        (tmp_path / "m" / version).mkdir(parents=True)
    return tmp_path


def run(
    packages: Path,
    spec: ModelSpec,
    scores: Scores,
    version: str = "000001",
    dataset: Any = None,  # noqa: ANN401
) -> Decision:
    trained: Any = SimpleNamespace(scores=scores, package=SimpleNamespace(version=version))
    return promote(dataset or only_test_rows(), spec, trained, store_at(packages), 77)


def champion_scores(patch: pytest.MonkeyPatch, scores: Scores | SkewlessError) -> list[str]:
    """Let the champion have these scores on the dataset, or none; return the versions that were asked for."""
    asked: list[str] = []

    def scored(_dataset: object, _spec: object, _packages: object, version: str) -> Scores:
        asked.append(version)
        if isinstance(scores, SkewlessError):
            raise scores
        return scores

    patch.setattr(promotion, "score_version", scored)
    return asked


def test_the_first_version_is_compared_with_nobody(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = champion_scores(monkeypatch, RIGHT)
    assert run(packages, make_spec(Gate(), rollout=Rollout()), RIGHT).promote
    assert asked == []
    (move,) = store_at(packages).aliases.history("m", CHAMPION)
    assert (move.expect, move.to, move.at_us) == (None, "000001", 77)
    assert move.reason == "auc 1.0000, no champion to compare with"


def test_the_alias_moves_only_if_the_gate_allows(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(packages, make_spec(Gate()), RIGHT)
    asked = champion_scores(monkeypatch, wrong_in(0.1))
    decision = run(packages, make_spec(Gate()), wrong_in(0.4), "000002")
    assert (decision.promote, asked) == (False, ["000001"])
    assert decision.gain is not None
    assert decision.gain.high is not None
    assert decision.gain.high < 0
    assert store_at(packages).aliases.get("m", CHAMPION) == "000001"
    assert run(packages, make_spec(Gate(tolerance=0.4)), wrong_in(0.4), "000002").promote
    assert [move.to for move in store_at(packages).aliases.history("m", CHAMPION)] == ["000001", "000002"]
    kept = list(store_at(packages).decisions.read_latest_first("m"))
    assert [(each["version"], each["against"], each["promote"]) for each in kept] == [
        ("000002", "000001", True),
        ("000002", "000001", False),
        ("000001", None, True),
    ]
    assert kept[1]["gain"] == asdict(decision.gain)
    assert last_decision(store_at(packages).decisions, "m", "000001") == kept[2]


def test_a_gain_that_chance_explains_passes_only_without_a_confidence(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(packages, make_spec(Gate()), RIGHT)
    champion_scores(monkeypatch, wrong_in(0.3, seed=2))
    better = wrong_in(0.3, seed=1)
    point = run(packages, make_spec(Gate(tolerance=0.05)), better, "000002")
    assert point.gain is not None
    assert point.gain.low is not None
    assert point.gain.low < -0.001
    decision = promotion.judge(
        only_test_rows(),
        make_spec(Gate(confidence=0.95, tolerance=0.001)),
        better,
        store_at(packages),
        against="000001",
    )
    assert (point.promote, decision.promote) == (True, False)


def test_the_same_scores_pass_with_and_without_a_confidence(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(packages, make_spec(Gate()), RIGHT)
    champion_scores(monkeypatch, wrong_in(0.3))
    for gate in (Gate(), Gate(confidence=0.99), Gate(metric="log_loss"), Gate(metric="calibration_error")):
        assert promotion.judge(
            only_test_rows(), make_spec(gate), wrong_in(0.3), store_at(packages), against="000001"
        ).promote


def test_a_win_overall_does_not_hide_a_loss_in_a_slice(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(packages, make_spec(Gate()), RIGHT)
    first = np.arange(N) < N // 2
    champion_scores(monkeypatch, np.where(first, RIGHT, np.random.default_rng(0).random(N)))
    scores = np.where(first, wrong_in(0.6), RIGHT)
    dataset = only_test_rows(CARRIERS)
    decision = run(packages, make_spec(Gate(), slices=("carrier",)), scores, "000002", dataset)
    assert not decision.promote
    assert "but it loses in carrier aa" in decision.reason
    assert [(each.value, each.lost) for each in decision.slices] == [("aa", True), ("bb", False)]
    assert decision.gain is not None
    assert decision.gain.gain is not None
    assert decision.gain.gain > 0
    spec = make_spec(Gate(slice_tolerance=0.9), slices=("carrier",))
    assert promotion.judge(dataset, spec, scores, store_at(packages), against="000001").promote


@pytest.mark.long
def test_many_slices_are_not_lost_by_chance(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equally good models: at 95 % an interval, of 40 slices each, most comparisons would find a loss."""
    run(packages, make_spec(Gate()), RIGHT)
    rng, lost = np.random.default_rng(7), 0
    for seed in range(10):
        columns = {f"c{i}": [str(code) for code in rng.integers(0, 2, N)] for i in range(20)}
        champion_scores(monkeypatch, wrong_in(0.5, seed=100 + seed))
        spec = make_spec(Gate(tolerance=1.0, slice_tolerance=0.0), slices=tuple(columns))
        decision = promotion.judge(
            only_test_rows(columns), spec, wrong_in(0.5, seed=seed), store_at(packages), against="000001"
        )
        assert len(decision.slices) == 40
        lost += not decision.promote
    assert lost <= 2


def test_a_rollout_moves_no_alias(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(packages, make_spec(Gate()), wrong_in(0.5))
    champion_scores(monkeypatch, wrong_in(0.5))
    decision = run(packages, make_spec(Gate(), rollout=Rollout()), RIGHT, "000002")
    assert (decision.promote, decision.by_rollout) == (True, True)
    assert store_at(packages).aliases.get("m", CHAMPION) == "000001"
    assert not run(packages, make_spec(Gate(), rollout=Rollout(kind="at_once")), RIGHT, "000002").by_rollout
    assert store_at(packages).aliases.get("m", CHAMPION) == "000002"


@pytest.mark.parametrize(
    "error",
    [
        PackageError("package m 000001", "has no file", value="model.txt", fix="restore it"),
        SourceError("label table of model 'm'", "has no such column", value="amount", fix="add it"),
        StoreError("log of view 'v'", "has no row", fix="restore it"),
    ],
)
def test_a_champion_that_cannot_be_scored_is_replaced_by_what_reaches_floor_and_baseline(
    packages: Path, monkeypatch: pytest.MonkeyPatch, error: SkewlessError
) -> None:
    run(packages, make_spec(Gate()), RIGHT)
    champion_scores(monkeypatch, error)
    assert not run(packages, make_spec(Gate(floor=0.999)), wrong_in(0.5), "000002").promote
    assert not run(packages, make_spec(Gate(floor=0.1)), 1.0 - RIGHT, "000002").promote
    decision = run(packages, make_spec(Gate(floor=0.6)), wrong_in(0.5), "000002")
    assert (decision.promote, decision.champion) == (True, None)
    assert decision.reason.endswith(f"the champion cannot be compared: {error.cause()}")
    kept = last_decision(store_at(packages).decisions, "m", "000002")
    assert kept is not None
    assert (kept["reason"], kept["baseline"]) == (decision.reason, 0.5)


def test_a_champion_without_the_metric_cannot_be_compared(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(packages, make_spec(Gate()), RIGHT)
    champion_scores(monkeypatch, np.zeros(N))
    spec = make_spec(Gate(metric="precision", floor=0.5))
    decision = promotion.judge(only_test_rows(), spec, wrong_in(0.3), store_at(packages), against="000001")
    assert (decision.promote, decision.champion) == (True, None)
    assert "the champion cannot be compared: its precision is undefined on the test rows" in decision.reason


def test_a_model_no_better_than_a_constant_is_not_promoted(packages: Path) -> None:
    scores, rmse = np.full(N, 0.4), {"task": "regression"}
    decision = run(packages, make_spec(Gate(metric="rmse"), **rmse), scores)
    assert (decision.promote, decision.baseline) == (False, 0.5)
    assert "is not better than the constant prediction's 0.5000" in decision.reason
    assert not run(packages, make_spec(Gate()), scores).promote
    assert store_at(packages).aliases.get("m", CHAMPION) is None
    assert run(packages, make_spec(Gate(metric="rmse", beat_baseline=False), **rmse), scores).promote


@pytest.mark.parametrize("metric", ["calibration_error", "recall", "recall_at_base_rate"])
def test_where_a_constant_is_perfect_it_is_no_baseline(packages: Path, metric: str) -> None:
    decision = run(packages, make_spec(Gate(metric=metric)), wrong_in(0.3))
    assert (decision.promote, decision.baseline) == (True, None)
    assert decision.reason.endswith(f"{metric} has no baseline on these rows")


def test_an_alias_that_moved_meanwhile_is_a_conflict(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(packages, make_spec(Gate()), RIGHT)

    def scored(*_: object) -> Scores:
        store_at(packages).aliases.move("m", CHAMPION, expect="000001", to="000002", reason="another", now_us=1)
        return wrong_in(0.9)

    monkeypatch.setattr(promotion, "score_version", scored)
    with pytest.raises(ConflictError):
        run(packages, make_spec(Gate()), RIGHT, "000001")
    assert store_at(packages).aliases.get("m", CHAMPION) == "000002"


def test_a_metric_that_was_not_evaluated_is_named(packages: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        run(packages, make_spec(Gate(metric="f7")), RIGHT)
    assert caught.value.value == "f7"
    assert "auc" in caught.value.fix
    assert store_at(packages).aliases.get("m", CHAMPION) is None
