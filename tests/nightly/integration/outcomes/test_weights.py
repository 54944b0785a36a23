"""Outcomes that exploration has let happen weigh for those that decisions have prevented."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from skewless.contract.actions import Explore
from skewless.contract.labels import Outcomes
from skewless.contract.spec import Split
from skewless.operations.models.quality import quality
from skewless.validation.evaluation.evaluation import evaluate
from tests.integration.outcomes.conftest import DAY, Loop
from tests.worlds.trained import MODEL, SECOND

SHARE = 0.1
EXPLORE = Explore(share=SHARE, action="approve")
DECISIONS = {"approve": 0.0, "decline": 0.05}


def test_what_explored_weighs_for_what_was_prevented(outcome_loop: Loop) -> None:
    labels = Outcomes(observed=("approve",), max_weight=8)
    outcome_loop.use(outcome_loop.first.labels, decisions=DECISIONS, explore=EXPLORE)
    model = outcome_loop.place.load(outcome_loop.place.train().package.version)
    outcome_loop.predict(16, each=60, model=model)
    approved = [i for i, action in enumerate(outcome_loop.actions) if action == "approve"]
    outcome_loop.say(
        *(
            outcome_loop.outcome(i, outcome_loop.labels[i], known_at=outcome_loop.times[i] + DAY * SECOND)
            for i in approved
        )
    )
    rows, counts = outcome_loop.label_rows(labels, decisions=DECISIONS, explore=EXPLORE)
    scores = dict(zip(outcome_loop.ids, outcome_loop.scores, strict=True))
    expected = {outcome_loop.ids[i]: 8.0 if scores[outcome_loop.ids[i]] >= 0.05 else 1.0 for i in approved}
    assert {name: row["outcome_weight"] for name, row in rows.items()} == expected
    explored = sum(weight == 8.0 for weight in expected.values())
    assert 0 < explored < len(approved)
    assert counts["clipped"] == explored
    assert counts["unobserved"] == len(outcome_loop.ids) - len(approved)

    found, _ = outcome_loop.label_rows(Outcomes(observed=("approve",)), decisions=DECISIONS, explore=EXPLORE)
    assert {row["outcome_weight"] for row in found.values()} == {1.0, 1 / SHARE}
    unweighted, _ = outcome_loop.label_rows(Outcomes(weighted=False))
    assert {row["outcome_weight"] for row in unweighted.values()} == {1.0}

    # Live quality has the same weights.
    outcome_loop.use(labels, decisions=DECISIONS, explore=EXPLORE)
    (live,) = (
        item for item in quality(outcome_loop.place.project, MODEL).whole.versions if item.version == model.version
    )
    weights = np.array([expected[outcome_loop.ids[i]] for i in approved])
    truth, given = np.array(outcome_loop.labels)[approved], np.array(outcome_loop.scores)[approved]
    assert live.metrics == pytest.approx(evaluate(truth, given, weights))
    assert live.effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert live.labelled == len(approved)

    # And so has the training set.
    known = Outcomes(observed=("approve",), max_weight=8, known="declared")
    dataset = outcome_loop.dataset(known, decisions=DECISIONS, explore=EXPLORE, split=Split(test=timedelta(days=4)))
    summary = dataset.weight_summary["train"]
    own = dataset.weights[dataset.train]
    assert summary == {"rows": own.size, "effective": pytest.approx(own.sum() ** 2 / (own**2).sum()), "largest": 8.0}
