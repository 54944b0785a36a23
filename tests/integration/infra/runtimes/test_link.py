"""A model's link function alone, from margins: the library's own bits for every objective and any margin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.certification import same_bits
from skewless.infra.models.runtimes.link import LINKS, LightGBMLink, XGBoostLink
from skewless.infra.models.runtimes.port import Matrix, Scores
from skewless.infra.models.runtimes.xgboost_capi import XGBoostRuntime

ROWS = np.random.default_rng(2).normal(size=(600, 3))
LABELS = {
    "any": ROWS[:, 0] + ROWS[:, 1],
    "positive": np.exp(ROWS[:, 0]),
    "share": 1 / (1 + np.exp(-ROWS[:, 0])),
    "binary": (ROWS[:, 0] > 0).astype(float),
    "class": np.digitize(ROWS[:, 0], [-0.5, 0.5]).astype(float),
}
LIGHTGBM = {
    "binary": "binary",
    "regression": "any",
    "regression_l1": "any",
    "huber": "any",
    "quantile": "any",
    "poisson": "positive",
    "gamma": "positive",
    "tweedie": "positive",
    "cross_entropy": "share",
    "cross_entropy_lambda": "share",
    "multiclass": "class",
    "multiclassova": "class",
    "lambdarank": "class",
    "rank_xendcg": "class",
}
XGBOOST = {
    "binary:logistic": "binary",
    "binary:logitraw": "binary",
    "binary:hinge": "binary",
    "reg:squarederror": "any",
    "reg:logistic": "share",
    "reg:absoluteerror": "any",
    "reg:pseudohubererror": "any",
    "reg:gamma": "positive",
    "reg:tweedie": "positive",
    "count:poisson": "positive",
    "multi:softprob": "class",
    "rank:ndcg": "class",
    "rank:pairwise": "class",
}
# What the models below make of a row is far from all margins; these leaves are.
SCALES = (0.0, 1e-9, 1.0, 20.0, 700.0)


def lightgbm_model(objective: str, **more: Any) -> lgb.Booster:  # noqa: ANN401 - parameters
    label = LABELS[LIGHTGBM[objective]]
    params = {"objective": objective, "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, **more}
    if objective.startswith("multi"):
        params["num_class"] = 3
    group = np.full(60, 10) if objective.startswith(("lambda", "rank")) else None
    return lgb.train(params, lgb.Dataset(ROWS, label, group=group), 12)


def xgboost_model(objective: str, **more: Any) -> xgb.Booster:  # noqa: ANN401 - parameters
    params = {"objective": objective, "nthread": 1, "verbosity": 0, "max_depth": 3, **more}
    if objective.startswith("multi"):
        params["num_class"] = 3
    data = xgb.DMatrix(ROWS, label=LABELS[XGBOOST[objective]])
    if objective.startswith("rank"):
        data.set_group(np.full(60, 10))
    return xgb.train(params, data, 12)


def scaled(margins: Scores, scale: float) -> Scores:
    return np.asarray(margins * scale)


@pytest.mark.parametrize("objective", sorted(LIGHTGBM))
def test_lightgbm(objective: str) -> None:
    booster = lightgbm_model(objective)
    link = LightGBMLink(booster.model_to_string().encode(), "model")
    margins, scores = np.asarray(booster.predict(ROWS, raw_score=True)), np.asarray(booster.predict(ROWS))
    found = link.scores(margins)
    assert found.shape == scores.shape
    assert same_bits(found, scores).all()
    alone = np.concatenate([link.scores(margins[at : at + 1]) for at in range(len(margins))])
    assert same_bits(alone, scores).all()
    assert link.scores(margins[:0]).shape == scores[:0].shape
    link.close()


@pytest.mark.parametrize("objective", ["binary", "poisson", "multiclass", "multiclassova"])
@pytest.mark.parametrize("scale", SCALES)
def test_lightgbm_of_leaves_of_any_size(objective: str, scale: float) -> None:
    booster = lightgbm_model(objective)
    leaves = [tree["num_leaves"] for tree in booster.dump_model()["tree_info"]]
    for tree in range(booster.num_trees()):
        for leaf in range(leaves[tree]):
            booster.set_leaf_output(tree, leaf, scale * booster.get_leaf_output(tree, leaf))
    link = LightGBMLink(booster.model_to_string().encode(), "model")
    found = link.scores(np.asarray(booster.predict(ROWS, raw_score=True)))
    assert same_bits(found, np.asarray(booster.predict(ROWS))).all()
    link.close()


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ("binary", {"sigmoid": 0.7}),
        ("regression", {"reg_sqrt": True}),
        ("binary", {"monotone_constraints": [1, 0, -1]}),
        ("multiclass", {"boosting": "goss"}),
        ("binary", {"linear_tree": True}),
    ],
)
def test_lightgbm_with_parameters_that_the_link_depends_on_or_does_not(objective: str, more: dict[str, Any]) -> None:
    booster = lightgbm_model(objective, **more)
    link = LightGBMLink(booster.model_to_string().encode(), "model")
    found = link.scores(np.asarray(booster.predict(ROWS, raw_score=True)))
    assert same_bits(found, np.asarray(booster.predict(ROWS))).all()
    link.close()


def test_a_lightgbm_forest_that_is_averaged_is_refused() -> None:
    booster = lightgbm_model("binary", boosting="rf", bagging_freq=1, bagging_fraction=0.6)
    with pytest.raises(PackageError, match="has no link that can be separated"):
        LightGBMLink(booster.model_to_string().encode(), "model")


def xgboost_scores(booster: xgb.Booster, rows: Matrix) -> tuple[Scores, Scores]:
    margins = booster.inplace_predict(rows, predict_type="margin")
    return margins.astype(np.float64), booster.inplace_predict(rows).astype(np.float64)


@pytest.mark.parametrize("more", [{}, {"base_score": 0.3, "num_parallel_tree": 2}])
@pytest.mark.parametrize("objective", sorted(XGBOOST))
def test_xgboost(objective: str, more: dict[str, Any]) -> None:
    booster = xgboost_model(objective, **more)
    link = XGBoostLink(bytes(booster.save_raw("json")), "model")
    margins, scores = xgboost_scores(booster, ROWS)
    found = link.scores(margins)
    assert found.shape == scores.shape
    assert same_bits(found, scores).all()
    alone = np.concatenate([link.scores(margins[at : at + 1]) for at in range(len(margins))])
    assert same_bits(alone, scores).all()
    assert link.scores(margins[:0]).shape == scores[:0].shape
    assert link.base.dtype == np.float32
    link.close()


@pytest.mark.parametrize("objective", ["binary:logistic", "count:poisson", "multi:softprob"])
@pytest.mark.parametrize("scale", SCALES)
def test_xgboost_of_base_margins_of_any_size(objective: str, scale: float) -> None:
    booster = xgboost_model(objective)
    link = XGBoostLink(bytes(booster.save_raw("json")), "model")
    width = 3 if objective.startswith("multi") else 1
    base = scaled(np.random.default_rng(3).normal(size=(len(ROWS), width)), scale).astype(np.float32)
    data = xgb.DMatrix(ROWS, base_margin=base if width > 1 else base[:, 0])
    margins = booster.predict(data, output_margin=True).astype(np.float64)
    assert same_bits(link.scores(margins), booster.predict(data).astype(np.float64)).all()
    link.close()


@pytest.mark.parametrize("kind", ["json", "ubj"])
def test_an_xgboost_model_whose_trees_are_weighted_has_the_same_link(kind: str) -> None:
    booster = xgboost_model("binary:logistic", booster="dart", rate_drop=0.5, base_score=0.2)
    runtime = XGBoostRuntime(bytes(booster.save_raw(kind)), "model")
    link = XGBoostLink(runtime.as_json(), "model")
    margins, scores = xgboost_scores(booster, ROWS)
    assert same_bits(link.scores(margins), scores).all()
    link.close()
    runtime.close()


def test_an_xgboost_model_without_trees_is_refused() -> None:
    booster = xgboost_model("reg:squarederror", booster="gblinear", max_depth=None)
    with pytest.raises(PackageError, match="is not a tree model"):
        XGBoostLink(bytes(booster.save_raw("json")), "model")


@pytest.mark.parametrize("kind", ["json", "ubj"])
def test_a_model_is_told_in_json_whatever_it_came_in(kind: str) -> None:
    booster = xgboost_model("multi:softprob")
    runtime = XGBoostRuntime(bytes(booster.save_raw(kind)), "model")
    again = XGBoostRuntime(runtime.as_json(), "model")
    assert runtime.as_json() == again.as_json()
    assert same_bits(again.score(ROWS), runtime.score(ROWS)).all()
    again.close()
    runtime.close()
    with pytest.raises(PackageError, match="is closed"):
        runtime.as_json()


@pytest.mark.parametrize("model", [b"", b"no model", b"{}", b'{"learner": {}}', b"tree\nversion=v4\n"])
@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost"])
def test_what_is_no_model_is_refused(algorithm: str, model: bytes) -> None:
    with pytest.raises(PackageError, match="the model"):
        LINKS[algorithm](model, "the model")


def test_a_closed_link_is_refused(tmp_path: Path) -> None:
    booster = lightgbm_model("binary")
    path = tmp_path / "model.txt"
    path.write_text(booster.model_to_string())
    link = LightGBMLink(path.read_bytes(), "model")
    link.close()
    link.close()
    with pytest.raises(PackageError, match="is closed"):
        link.scores(np.zeros(3))
