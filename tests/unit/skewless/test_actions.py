"""Exploration as a declaration: what may be declared, and that its choice is one of chance alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from skewless.contract.actions import Explore
from skewless.contract.errors import DefinitionError
from skewless.contract.labels import AnyLabels, LabelSource, Outcomes
from skewless.contract.plain_record import build_value, plain_value
from skewless.contract.spec import ModelSpec, Split

TABLE = LabelSource(path="p", event_time="e", known_time="k", label="y", tolerance=timedelta(hours=1))
EXPLORE = Explore(share=0.05, action="approve")
BASE: dict[str, Any] = {"name": "m", "service": "s", "algorithm": "lightgbm", "split": Split(test=timedelta(days=1))}


def choice(explore: Explore, model: str = "m", n: int = 20_000) -> np.ndarray:
    return np.array(explore.choose(model, [(i, f"card {i}") for i in range(n)]))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_the_share_is_what_is_declared(share: float) -> None:
    chosen = choice(Explore(share=share, action="approve"))
    assert abs(chosen.mean() - share) < 4 * np.sqrt(share * (1 - share) / chosen.size)


def test_models_and_salts_choose_independently() -> None:
    one, other, salted = choice(EXPLORE), choice(EXPLORE, "n"), choice(Explore(share=0.05, action="a", salt="2"))
    assert (choice(EXPLORE) == one).all()
    for second in (other, salted):
        assert abs((one & second).mean() - 0.05**2) < 0.002
    larger = choice(Explore(share=0.1, action="approve"))
    assert not (one & ~larger).any(), "a larger share only adds"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_is_none_is_rejected(share: float) -> None:
    with pytest.raises(DefinitionError, match="is not between 0 and 1"):
        Explore(share=share, action="approve")


def test_exploration_needs_a_decision_of_the_model() -> None:
    with pytest.raises(DefinitionError, match="is not a decision"):
        ModelSpec(**BASE, labels=TABLE, explore=EXPLORE)
    with pytest.raises(DefinitionError, match=r"not an input.*use card_id"):
        Explore(share=0.1, action="approve", sticky=("who",)).check_inputs("m", ["card_id"])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"known": "later"}, "is unknown"),
        ({"vectors": "guessed"}, "is unknown"),
        ({"maturity": timedelta(-1)}, "is below zero"),
        ({"missing": 0.0}, "has no maturity"),
        ({"max_weight": 0.5}, "is below 1"),
        ({"max_weight": float("nan")}, "is below 1"),
    ],
)
def test_outcomes_that_cannot_be(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        Outcomes(**fields)


@pytest.mark.parametrize(
    "labels",
    [
        TABLE,
        Outcomes(),
        Outcomes(table=TABLE, maturity=timedelta(days=3), missing=0.0, observed=("approve",), vectors="logged"),
    ],
)
def test_labels_survive_their_storage(labels: LabelSource | Outcomes) -> None:
    assert build_value(AnyLabels, plain_value(labels)) == labels
    spec = ModelSpec(**BASE, labels=labels, decisions={"approve": 0.0, "decline": 0.5}, explore=EXPLORE)
    assert ModelSpec.from_dict(spec.as_dict()) == spec
