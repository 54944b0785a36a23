"""What a user declares about a model cannot be wrong, and survives JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import pytest

from skewless.contract.errors import DefinitionError
from skewless.contract.labels import LabelSource
from skewless.contract.spec import Gate, ModelSpec, Split

LABELS = LabelSource(path="p", event_time="e", known_time="k", label="y", weight="w", columns={"id": "ID"})
SPEC = ModelSpec(
    name="late-flights",
    service="s",
    labels=LABELS,
    algorithm="xgboost",
    split=Split(test=timedelta(days=7), embargo=timedelta(microseconds=1), validation=timedelta(hours=1)),
    task="regression",
    horizon=timedelta(minutes=90, microseconds=3),
    params={"depth": 3, "metric": ("rmse", "mae"), "nested": {"a": [1, 2.5, None]}},
    gate=Gate(metric="rmse", floor=1.5, tolerance=0.1),
    retrain="0 4 * * *",
)
MULTICLASS = replace(SPEC, task="multiclass", classes=("cat", "dog"))
RANKING = replace(SPEC, task="ranking", group="query", decisions={"top": 1, "good": 0.5, "poor": -2.5})


@pytest.mark.parametrize("spec", [SPEC, MULTICLASS, RANKING])
def test_a_spec_survives_json(spec: ModelSpec) -> None:
    text = json.dumps(spec.as_dict(), sort_keys=True)
    again = ModelSpec.from_dict(json.loads(text))
    assert again == spec
    assert list(again.decisions) == list(spec.decisions)


def test_decisions_rise() -> None:
    assert list(RANKING.decisions.items()) == [("poor", -2.5), ("good", 0.5), ("top", 1)]


def test_a_field_that_is_missing_has_its_default() -> None:
    data = {key: value for key, value in SPEC.as_dict().items() if key not in {"classes", "group", "decisions"}}
    assert ModelSpec.from_dict(data) == SPEC


def test_a_spec_names_only_what_it_uses_so_that_a_release_without_the_rest_reads_it() -> None:
    assert None not in SPEC.as_dict().values()
    assert {"group", "policy", "explore", "rollout", "search"}.isdisjoint(SPEC.as_dict())


def test_an_algorithm_of_another_package_may_be_named() -> None:
    assert replace(SPEC, algorithm="my-forest").algorithm == "my-forest"


def test_lengths_are_microseconds_in_json() -> None:
    data = SPEC.as_dict()
    assert data["horizon"] == 5_400_000_003
    assert data["split"] == {"test": 604_800_000_000, "embargo": 1, "validation": 3_600_000_000}


def test_a_spec_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SPEC.rounds = 5  # type: ignore[misc]


def test_label_columns_may_have_other_names() -> None:
    assert [LABELS.column("id"), LABELS.column("other")] == ["ID", "other"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(SPEC, name="a/b"), "ModelSpec.name: is not a name.*'a/b'"),
        (lambda: replace(SPEC, name=""), "ModelSpec.name: is not a name"),
        (lambda: replace(SPEC, name=".."), "ModelSpec.name: is not a name"),
        (lambda: replace(SPEC, algorithm="a b"), "algorithm: is not a name.*'a b'.*lightgbm, xgboost"),
        (lambda: replace(SPEC, classes=("a", "b")), "classes: do not fit a regression model"),
        (lambda: replace(SPEC, task="multiclass"), "classes: are not at least two different names"),
        (lambda: replace(SPEC, task="multiclass", classes=("a",)), "at least two"),
        (lambda: replace(SPEC, task="multiclass", classes=("a", "a")), "different names"),
        (lambda: replace(SPEC, task="multiclass", classes=("a", "")), "different names"),
        (lambda: replace(SPEC, task="multiclass", classes=(0, 1)), "different names"),  # type: ignore[arg-type]
        (lambda: replace(SPEC, group="store"), "group: does not fit a regression model.*'store'"),
        (lambda: replace(SPEC, task="ranking"), "group: does not fit a ranking model.*key or request field"),
        (lambda: replace(MULTICLASS, decisions={"a": 0.5}), "decisions: do not fit a multiclass model"),
        (lambda: replace(SPEC, decisions={"a": float("nan")}), "not names with a finite number"),
        (lambda: replace(SPEC, decisions={"a": True}), "not names with a finite number"),
        (lambda: replace(SPEC, decisions={"a": "0.5"}), "not names with a finite number"),  # type: ignore[dict-item]
        (lambda: replace(SPEC, decisions={"": 0.5}), "not names with a finite number"),
        (lambda: replace(SPEC, decisions={"a": 0.5, "b": 0.5}), "decisions: have equal lowest scores"),
        (lambda: replace(SPEC, task="rank"), "task: is unknown"),  # type: ignore[arg-type]
        (lambda: replace(SPEC, time_mode="now"), "time_mode: is unknown"),  # type: ignore[arg-type]
        (lambda: replace(SPEC, missing="zero"), "missing: is unknown"),  # type: ignore[arg-type]
        (lambda: replace(SPEC, log="never"), "log: is unknown"),  # type: ignore[arg-type]
        (lambda: replace(SPEC, rounds=0), "rounds: is below 1"),
        (lambda: replace(SPEC, horizon=timedelta(-1)), "horizon: is below zero"),
        (lambda: Split(test=timedelta(0)), "Split.test: is not above zero"),
        (lambda: Split(test=timedelta(1), embargo=timedelta(-1)), "Split.embargo: is below zero"),
        (lambda: Split(test=timedelta(1), validation=timedelta(-1)), "Split.validation: is below zero"),
    ],
)
def test_what_cannot_be_right_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()


@pytest.mark.parametrize(
    "fields", [{"confidence": 0.0}, {"confidence": 1.0}, {"tolerance": -0.1}, {"slice_tolerance": -1}]
)
def test_a_gate_that_cannot_be_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match=rf"Gate\.{next(iter(fields))}: is "):
        Gate(**fields)  # type: ignore[arg-type]
