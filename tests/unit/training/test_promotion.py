"""The gate's decision, and the alias that moves only if it allows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.packages.aliases import Aliases
from skewless.errors import ConflictError, DefinitionError
from skewless.spec import LOWER_IS_BETTER, Gate, LabelSource, ModelSpec, Split
from training import promotion
from training.promotion import CHAMPION, decide, promote

Metrics = dict[str, float | None]
QUALITY = st.floats(-1e6, 1e6)


def make_spec(gate: Gate) -> ModelSpec:
    labels = LabelSource(path="l.parquet", event_time="t", known_time="k", label="y")
    return ModelSpec(
        name="m", service="s", labels=labels, algorithm="lightgbm", split=Split(test=timedelta(days=1)), gate=gate
    )


@pytest.mark.parametrize(
    ("gate", "candidate", "champion", "promoted", "reason"),
    [
        (Gate(), 0.6, None, True, "auc 0.6000, no champion to compare with"),
        (Gate(), 0.6, 0.6, True, "auc 0.6000 against the champion's 0.6000 on the same rows"),
        (Gate(), 0.6, 0.61, False, "auc 0.6000 against the champion's 0.6100 on the same rows"),
        (Gate(tolerance=0.25), 0.5, 0.75, True, "auc 0.5000 against the champion's 0.7500 on the same rows"),
        (Gate(tolerance=0.25), 0.25, 0.75, False, "auc 0.2500 against the champion's 0.7500 on the same rows"),
        (Gate(floor=0.6), 0.6, None, True, "auc 0.6000, no champion to compare with"),
        (Gate(floor=0.6), 0.59, None, False, "auc 0.5900 misses the floor 0.6000"),
        (Gate(floor=0.6), 0.59, 0.1, False, "auc 0.5900 misses the floor 0.6000"),
        (Gate(metric="rmse", floor=2.0), 2.0, None, True, "rmse 2.0000, no champion to compare with"),
        (Gate(metric="rmse", floor=2.0), 2.1, 3.0, False, "rmse 2.1000 misses the floor 2.0000"),
        (Gate(metric="rmse"), 2.0, 2.5, True, "rmse 2.0000 against the champion's 2.5000 on the same rows"),
        (Gate(metric="rmse"), 2.5, 2.0, False, "rmse 2.5000 against the champion's 2.0000 on the same rows"),
        (Gate(metric="mae", tolerance=1), 2.5, 2.0, True, "mae 2.5000 against the champion's 2.0000 on the same rows"),
        (Gate(floor=0.0), None, None, False, "auc does not exist on the test rows"),
        (Gate(), None, 0.7, False, "auc does not exist on the test rows"),
    ],
)
def test_the_gate(gate: Gate, candidate: float | None, champion: float | None, reason: str, *, promoted: bool) -> None:
    decision = decide(gate, candidate, champion)
    assert (decision.promote, decision.reason) == (promoted, reason)
    assert (decision.candidate, decision.champion) == (candidate, champion)


@pytest.mark.parametrize("metric", ["auc", *sorted(LOWER_IS_BETTER)])
@given(candidate=QUALITY, champion=st.none() | QUALITY, floor=st.none() | QUALITY, better=st.floats(0, 1e6))
def test_a_better_candidate_is_never_refused_where_a_worse_one_passes(
    metric: str, candidate: float, champion: float | None, floor: float | None, better: float
) -> None:
    gate = Gate(metric=metric, floor=floor)
    improved = candidate - better if metric in LOWER_IS_BETTER else candidate + better
    if decide(gate, candidate, champion).promote:
        assert decide(gate, improved, champion).promote
        assert champion is None or decide(gate, champion, candidate).promote <= (champion == candidate)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for version in ("000001", "000002"):
        (tmp_path / "m" / version).mkdir(parents=True)
    return tmp_path


def run(packages: Path, gate: Gate, metrics: Metrics, version: str = "000001") -> promotion.Decision:
    trained: Any = SimpleNamespace(metrics=metrics, package=SimpleNamespace(version=version))
    dataset: Any = None  # only the champion's scores need it
    return promote(dataset, make_spec(gate), trained, packages, 77)


def champion_scores(patch: pytest.MonkeyPatch, metrics: Metrics | None) -> list[str]:
    """Let the champion have these metrics on the dataset; return the versions that were asked for."""
    asked: list[str] = []

    def measure(_dataset: object, _spec: object, _packages: object, version: str) -> Metrics | None:
        asked.append(version)
        return metrics

    patch.setattr(promotion, "champion_metrics", measure)
    return asked


def test_the_first_version_is_compared_with_nobody(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = champion_scores(monkeypatch, {})
    assert run(packages, Gate(), {"auc": 0.7}).promote
    assert asked == []
    (move,) = Aliases(packages).history("m", CHAMPION)
    assert (move.expect, move.to, move.at_us) == (None, "000001", 77)
    assert move.reason == "auc 0.7000, no champion to compare with"


def test_the_alias_moves_only_if_the_gate_allows(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(packages, Gate(), {"auc": 0.7})
    asked = champion_scores(monkeypatch, {"auc": 0.71})
    decision = run(packages, Gate(), {"auc": 0.7}, "000002")
    assert (decision.promote, decision.champion, asked) == (False, 0.71, ["000001"])
    assert Aliases(packages).get("m", CHAMPION) == "000001"
    assert run(packages, Gate(tolerance=0.02), {"auc": 0.7}, "000002").promote
    assert [move.to for move in Aliases(packages).history("m", CHAMPION)] == ["000001", "000002"]


def test_a_champion_of_other_views_is_replaced_by_whatever_reaches_the_floor(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(packages, Gate(), {"auc": 0.9})
    champion_scores(monkeypatch, None)
    assert not run(packages, Gate(floor=0.6), {"auc": 0.5}, "000002").promote
    decision = run(packages, Gate(floor=0.6), {"auc": 0.6}, "000002")
    assert (decision.promote, decision.champion) == (True, None)


def test_an_alias_that_moved_meanwhile_is_a_conflict(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(packages, Gate(), {"auc": 0.7})

    def measure(*_: object) -> Metrics:
        Aliases(packages).move("m", CHAMPION, expect="000001", to="000002", reason="another", now_us=1)
        return {"auc": 0.1}

    monkeypatch.setattr(promotion, "champion_metrics", measure)
    with pytest.raises(ConflictError):
        run(packages, Gate(), {"auc": 0.7}, "000001")
    assert Aliases(packages).get("m", CHAMPION) == "000002"


def test_a_metric_that_was_not_evaluated_is_named(packages: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        run(packages, Gate(metric="f7"), {"auc": 0.7, "brier": 0.1})
    assert (caught.value.value, caught.value.fix) == ("f7", "use one of auc, brier")
    assert Aliases(packages).get("m", CHAMPION) is None


def test_the_tolerance_itself_is_accepted() -> None:
    assert decide(Gate(metric="auc", tolerance=0.01), 0.69, 0.70).promote
    assert not decide(Gate(metric="auc", tolerance=0.01), 0.6899, 0.70).promote
