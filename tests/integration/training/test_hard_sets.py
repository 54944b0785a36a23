"""Training sets that nobody should train on: each ends in an error that says why, or in a decision, never otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from skewless.contract.errors import SkewlessError, SourceError
from skewless.contract.lifecycle import Search
from skewless.contract.spec import Gate, ModelSpec, Split
from skewless.training.dataset import Dataset
from skewless.training.decision import Decision
from skewless.training.promotion import promote
from skewless.training.train import TrainedVersion, train
from tests.worlds.packages import store_at
from tests.worlds.shop import END, SPEC, Shop, open_shop

ALGORITHMS = ("lightgbm", "xgboost", "sklearn", "catboost")
TASKS: dict[str, dict[str, Any]] = {
    "regression": {"task": "regression", "gate": Gate(metric="rmse")},
    "multiclass": {"task": "multiclass", "classes": ("ham", "spam"), "gate": Gate(metric="accuracy")},
    "ranking": {"task": "ranking", "group": "id", "gate": Gate(metric="ndcg")},
}


@pytest.fixture(scope="module")
def finite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("hard"), fewest=1) as one:
        yield one


def spec_of(algorithm: str = "lightgbm", task: str = "binary", **fields: Any) -> ModelSpec:  # noqa: ANN401 - spec's
    return replace(SPEC, algorithm=algorithm, rounds=5, **{**TASKS.get(task, {}), **fields})


def trained(dataset: Dataset, spec: ModelSpec, packages: Path) -> tuple[TrainedVersion, Decision]:
    found = train(dataset, spec, store_at(packages), threads=1, now_us=END)
    return found, promote(dataset, spec, found, store_at(packages), END)


def refused(dataset: Dataset, spec: ModelSpec, packages: Path) -> str:
    with pytest.raises(SkewlessError) as caught:
        train(dataset, spec, store_at(packages), threads=1, now_us=END)
    assert store_at(packages).packages.list_versions(spec.name) == []
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_class(finite: Shop, tmp_path: Path, algorithm: str) -> None:
    dataset = finite.dataset(spec_of(algorithm))
    ones = replace(dataset, labels=np.ones_like(dataset.labels))
    assert "SourceError: labels of model 'm': are not both 0 and 1 (got '[1.0]')" in refused(
        ones, spec_of(algorithm), tmp_path
    )
    if algorithm != "sklearn":
        said = refused(ones, spec_of(algorithm, "multiclass"), tmp_path)
        assert "SourceError: labels of model 'm': are not at least two of the classes 0 to 1" in said


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_class_among_the_test_rows_is_a_decision(finite: Shop, tmp_path: Path, algorithm: str) -> None:
    dataset = finite.dataset(spec_of(algorithm))
    found, decision = trained(
        replace(dataset, labels=np.where(dataset.test, 1.0, dataset.labels)), spec_of(algorithm), tmp_path
    )
    assert (decision.promote, decision.reason) == (False, "auc is undefined on the test rows")
    assert found.package.curves["importance"].keys() == {"gain", "splits"}
    assert "roc" not in found.package.curves


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_class_among_the_validation_rows_stops_early_all_the_same(
    finite: Shop, tmp_path: Path, algorithm: str
) -> None:
    split = Split(test=timedelta(days=8), validation=timedelta(days=8))
    spec = spec_of(algorithm, split=split, params={"early_stopping_rounds": 2})
    dataset = finite.dataset(spec)
    found, _ = trained(replace(dataset, labels=np.where(dataset.validation, 1.0, dataset.labels)), spec, tmp_path)
    assert len(next(iter(found.package.curves["learning"].values()))) >= found.package.about["rounds"]
    if algorithm == "lightgbm":
        searched = replace(spec, search=Search(space={"num_leaves": (2, 9)}, trials=2))
        one = replace(dataset, labels=np.where(dataset.validation, 1.0, dataset.labels))
        assert "have no auc on the validation rows" in refused(one, searched, tmp_path / "searched")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_feature_has_a_value(finite: Shop, tmp_path: Path, algorithm: str) -> None:
    spec = spec_of(algorithm)
    dataset = finite.dataset(spec)
    empty = replace(dataset, matrix=np.full_like(dataset.matrix, np.nan))
    assert "SourceError: training rows of model 'm': have no feature value" in refused(empty, spec, tmp_path)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_some_features_have_no_value(finite: Shop, tmp_path: Path, algorithm: str, task: str) -> None:
    spec = spec_of(algorithm, task)
    dataset = finite.dataset(spec)
    matrix = dataset.matrix.copy()
    matrix[:, :-1] = np.nan
    found, decision = trained(replace(dataset, matrix=matrix), spec, tmp_path)
    assert decision.promote
    for kind in ("splits", "permutation"):
        assert {name for name, value in found.package.curves["importance"][kind].items() if value} == {
            dataset.names[-1]
        }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_label_that_is_always_the_same_number(finite: Shop, tmp_path: Path, algorithm: str) -> None:
    spec = spec_of(algorithm, "regression")
    dataset = finite.dataset(spec)
    found, decision = trained(replace(dataset, labels=np.full_like(dataset.labels, 3.0)), spec, tmp_path)
    assert not decision.promote
    assert "is not better than the constant prediction's 0.0000" in decision.reason
    assert found.metrics["rmse"] == pytest.approx(0.0, abs=1e-6)
    assert sum(found.package.curves["importance"]["splits"].values()) == 0


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "catboost"])
def test_a_ranking_without_anything_of_worth_is_a_decision(finite: Shop, tmp_path: Path, algorithm: str) -> None:
    spec = spec_of(algorithm, "ranking")
    dataset = finite.dataset(spec)
    _, decision = trained(replace(dataset, labels=np.zeros_like(dataset.labels)), spec, tmp_path)
    assert (decision.promote, decision.reason) == (False, "ndcg is undefined on the test rows")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_weights_that_weigh_nothing_are_refused(finite: Shop, tmp_path: Path, algorithm: str, weight: float) -> None:
    spec = spec_of(algorithm)
    dataset = finite.dataset(spec)
    said = refused(replace(dataset, weights=np.full_like(dataset.weights, weight)), spec, tmp_path)
    assert said.startswith("SourceError: training weights: are ")


def label_rows(shop: Shop, **columns: Any) -> pa.Table:  # noqa: ANN401 - Arrow's
    table = shop.read("labels.parquet")
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def test_a_label_table_without_rows_or_labels(shop: Shop) -> None:
    whole = shop.read("labels.parquet")
    tables = {
        "no rows": whole.slice(0, 0),
        "no labels": label_rows(shop, y=pa.nulls(whole.num_rows, pa.int64())),
        "labels that are no numbers": label_rows(shop, y=pa.array([np.nan, np.inf] * (whole.num_rows // 2))),
        "labels never known": label_rows(shop, known=pa.nulls(whole.num_rows, pa.timestamp("us", tz="UTC"))),
    }
    for name, table in tables.items():
        shop.write("labels.parquet", table)
        with pytest.raises(SourceError, match="has no usable row") as caught:
            shop.dataset(spec_of())
        assert isinstance(caught.value.value, dict), name
        assert caught.value.value["rows"] == table.num_rows


def test_labels_that_contradict_each_other_are_counted_and_told(shop: Shop, tmp_path: Path) -> None:
    whole = shop.read("labels.parquet")
    assert shop.dataset(spec_of()).counts["contradicting"] == 0
    usable = whole.filter(pc.and_(pc.is_valid(whole["y"]), pc.is_valid(whole["known"])))
    others = usable.set_column(3, "y", pc.subtract(1, usable["y"]))
    assert usable.column_names[3] == "y"
    shop.write("labels.parquet", pa.concat_tables([whole, others, usable.slice(0, 5)]))
    dataset = shop.dataset(spec_of())
    assert dataset.counts["contradicting"] == dataset.counts["used"]
    found, _ = trained(dataset, spec_of(), tmp_path)
    assert found.metrics["auc"] == pytest.approx(0.5, abs=1e-6)
    assert found.package.fingerprint["counts"]["contradicting"] == dataset.counts["used"]
