"""Constraints of training: every form in which the libraries take them, by feature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from skewless.contract.errors import DefinitionError
from skewless.training.constraints import constraint_rows, describe_constraints, index_constraints
from tests.worlds.shop import SPEC

NAMES = ("v__a", "v__b", "request__c")
BOTH = {"monotone": {"v__a": 1, "request__c": -1}, "interactions": [["v__a", "v__b"], ["request__c"]]}


@pytest.mark.parametrize(
    ("algorithm", "params", "indexed"),
    [
        (
            "lightgbm",
            {"mc": [1, 0, -1], "interaction_constraints": [[0, 1], [2]]},
            {"mc": [1, 0, -1], "interaction_constraints": [[0, 1], [2]]},
        ),
        (
            "lightgbm",
            {"monotone_constraints": "1,0,-1", "interaction_constraints": "[0,1],[2]"},
            {"monotone_constraints": "1,0,-1", "interaction_constraints": "[0,1],[2]"},
        ),
        (
            "xgboost",
            {"monotone_constraints": "(1, 0, -1)", "interaction_constraints": "[[0, 1], [2]]"},
            {"monotone_constraints": "(1, 0, -1)", "interaction_constraints": "[[0, 1], [2]]"},
        ),
        (
            "xgboost",
            {
                "monotone_constraints": {"request__c": -1, "v__a": 1},
                "interaction_constraints": [["v__a", "v__b"], ["request__c"]],
            },
            {"monotone_constraints": "(1,0,-1)", "interaction_constraints": "[[0, 1], [2]]"},
        ),
        (
            "xgboost",
            {"monotone_constraints": (1, 0, -1), "interaction_constraints": [[0, 1], [2]]},
            {"monotone_constraints": "(1,0,-1)", "interaction_constraints": "[[0, 1], [2]]"},
        ),
        (
            "sklearn",
            {"monotonic_cst": {"v__a": 1, "request__c": -1}, "interaction_cst": [["v__a", 1], [2]]},
            {"monotonic_cst": [1, 0, -1], "interaction_cst": [[0, 1], [2]]},
        ),
    ],
)
def test_all_forms_mean_the_same(algorithm: str, params: dict[str, Any], indexed: dict[str, Any]) -> None:
    spec = replace(SPEC, algorithm=algorithm, params={"learning_rate": 0.1, **params})
    assert index_constraints(spec, NAMES).params == {"learning_rate": 0.1, **indexed}
    assert describe_constraints(spec, NAMES) == BOTH


@pytest.mark.parametrize(
    ("algorithm", "params", "found"),
    [
        ("lightgbm", {}, {}),
        ("lightgbm", {"monotone_constraints": [0, 0, 0]}, {}),
        ("xgboost", {"mc": [1, 0, 0]}, {}),  # no parameter of XGBoost
        ("sklearn", {"monotone_constraints": [1, 0, 0]}, {}),
        ("catboost", {"monotone_constraints": "0:1,2:-1"}, {"monotone": {"v__a": 1, "request__c": -1}}),
        ("catboost", {"monotone_constraints": {"v__b": -1}}, {"monotone": {"v__b": -1}}),
        ("sklearn", {"interaction_cst": "no_interactions"}, {"interactions": "no_interactions"}),
    ],
)
def test_only_what_the_library_reads_is_described(
    algorithm: str, params: dict[str, Any], found: dict[str, Any]
) -> None:
    assert describe_constraints(replace(SPEC, algorithm=algorithm, params=params), NAMES) == found
    assert bool(constraint_rows({"constraints": found})) == bool(found)


@pytest.mark.parametrize("name", ["monotone_constraints", "interaction_constraints"])
@pytest.mark.parametrize("feature", ["v__z", "a"])
def test_an_unknown_feature_is_refused(name: str, feature: str) -> None:
    value = {feature: 1} if name.startswith("monotone") else [["v__a", feature]]
    with pytest.raises(DefinitionError, match=f"'{name}': names an unknown feature .got '{feature}'.*v__a, v__b"):
        index_constraints(replace(SPEC, params={name: value}), NAMES)
