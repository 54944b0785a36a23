"""Models of every kind from label rows to a champion: trained, packaged, certified, measured, promoted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import PackageError
from skewless.contract.spec import Gate, ModelSpec
from skewless.infra.models.packages.served_model import load_model
from skewless.training.constraints import constraint_rows
from skewless.training.promotion import CHAMPION, promote
from skewless.training.quality import measure, score_version
from skewless.training.train import train
from tests.worlds.packages import store_at
from tests.worlds.shop import END, SPEC, Shop, open_shop

FIELDS: dict[str, dict[str, Any]] = {
    "binary": {"gate": Gate(metric="auc")},
    "regression": {"task": "regression", "gate": Gate(metric="rmse")},
    "multiclass": {"task": "multiclass", "classes": ("ham", "spam"), "gate": Gate(metric="auc_macro", tolerance=0.1)},
    "ranking": {"task": "ranking", "group": "id", "gate": Gate(metric="ndcg_at_5")},
}
KINDS = [
    *((algorithm, task) for algorithm in ("lightgbm", "xgboost", "catboost") for task in FIELDS),
    ("sklearn", "binary"),
    ("sklearn", "regression"),
]


@pytest.fixture(scope="module")
def finite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose ratio never divides by 0: XGBoost and scikit-learn train on no infinity."""
    with open_shop(tmp_path_factory.mktemp("finite"), fewest=1) as shop:
        yield shop


def spec_of(algorithm: str, task: str) -> ModelSpec:
    return replace(SPEC, algorithm=algorithm, rounds=10, **FIELDS[task])


@pytest.mark.parametrize(
    ("algorithm", "monotone", "interactions"),
    [
        ("lightgbm", "monotone_constraints", "interaction_constraints"),
        ("xgboost", "monotone_constraints", "interaction_constraints"),
        ("sklearn", "monotonic_cst", "interaction_cst"),
        ("catboost", "monotone_constraints", None),
    ],
)
def test_constraints_by_name_are_kept_and_travel_in_the_package(
    finite: Shop, tmp_path: Path, algorithm: str, monotone: str, interactions: str | None
) -> None:
    plain = spec_of(algorithm, "binary")
    dataset = finite.dataset(plain)
    names, categorical = dataset.names, dataset.training_rows(dataset.train).categorical
    numbers = [i for i in range(len(names)) if i not in categorical]
    ways = {names[numbers[0]]: 1, names[numbers[1]]: -1}
    groups = [[names[i] for i in numbers[:2]], [name for i, name in enumerate(names) if i not in numbers[:2]]]
    params: dict[str, Any] = {monotone: ways}
    indexes: dict[str, Any] = {monotone: [ways.get(name, 0) for name in names]}
    found: dict[str, Any] = {"monotone": ways}
    if interactions is not None:
        params[interactions] = found["interactions"] = groups
        indexes[interactions] = [[names.index(name) for name in group] for group in groups]
    spec, indexed = (replace(plain, params=each) for each in (params, indexes))
    packages = [train(dataset, each, store_at(tmp_path), threads=1, now_us=END).package for each in (spec, indexed)]
    assert packages[0].model_file.read_bytes() == packages[1].model_file.read_bytes()
    assert packages[0].spec.params == spec.params
    ways_text = ("may only raise the margin", "may only lower the margin")
    assert constraint_rows(packages[0].about)[:2] == sorted(zip(ways, ways_text, strict=True))
    assert [package.about["constraints"] for package in packages] == [found] * 2
    model = load_model(store_at(tmp_path), "m", packages[0].version)
    rows = np.nan_to_num(dataset.matrix[:50])
    for feature, way in ways.items():
        values = np.linspace(-100, 100, 41)
        changed = np.repeat(rows, len(values), axis=0)
        changed[:, names.index(feature)] = np.tile(values, len(rows))
        margins = model.runtime.margin(np.ascontiguousarray(changed)).reshape(len(rows), -1)
        assert (np.diff(margins, axis=1) * way >= -1e-6).all()  # XGBoost adds in float32


@pytest.mark.parametrize(("algorithm", "task"), KINDS)
def test_a_model_of_every_kind_becomes_champion(finite: Shop, tmp_path: Path, algorithm: str, task: str) -> None:
    spec = spec_of(algorithm, task)
    dataset = finite.dataset(spec)
    trained = train(dataset, spec, store_at(tmp_path), threads=1, now_us=END)
    assert promote(dataset, spec, trained, store_at(tmp_path), END).promote
    assert store_at(tmp_path).aliases.get("m", CHAMPION) == "000001"
    metrics = json.loads((trained.package.path / "metrics.json").read_text())
    assert metrics == trained.metrics
    assert metrics[spec.gate.metric] is not None
    model = load_model(store_at(tmp_path), "m", "000001")
    scores = model.runtime.score(np.ascontiguousarray(dataset.matrix[dataset.test]))
    assert scores.shape == ((len(scores), 2) if task == "multiclass" else (len(scores),))
    assert model.certificate.bit_equal
    model.runtime.close()
    assert measure(dataset, spec, score_version(dataset, spec, store_at(tmp_path), "000001")) == trained.metrics


def test_a_champion_of_another_task_is_not_compared(finite: Shop, tmp_path: Path) -> None:
    binary, classes = spec_of("lightgbm", "binary"), spec_of("lightgbm", "multiclass")
    dataset = finite.dataset(binary)
    trained = train(dataset, binary, store_at(tmp_path), threads=1, now_us=END)
    assert promote(dataset, binary, trained, store_at(tmp_path), END).champion is None
    with pytest.raises(PackageError, match="has another task"):
        score_version(dataset, classes, store_at(tmp_path), "000001")
    again = train(dataset, classes, store_at(tmp_path), threads=1, now_us=END)
    decision = promote(dataset, classes, again, store_at(tmp_path), END)
    assert (decision.promote, decision.champion) == (True, None)
    assert store_at(tmp_path).aliases.get("m", CHAMPION) == "000002"
