"""Whatever was said of predictions, and with all options, a label row has the label that a plain search gives."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from skewless.contract.labels import Outcomes
from tests.integration.outcomes.conftest import DAY, Loop

OUTCOMES = ((0, None), (1, None), (1, 20.0), (7, None), (None, 20.0), (None, None))
MISSING = (None, 0.0)
KNOWN = ("arrived", "declared")
Told = tuple[int, int, float | None, float | None]


def tell(loop: Loop, draw: random.Random, now: int) -> list[tuple[int, Told]]:
    """Send outcomes of some predictions, by id or by entity; return each with its prediction."""
    told, rows = list[tuple[int, Told]](), []
    for place in range(draw.randrange(20, 40)):
        i, (label, value) = draw.randrange(len(loop.ids)), draw.choice(OUTCOMES)
        known_at = now - draw.randrange(4)
        said: dict[str, Any] = {"label": label, "value": value, "known_at": known_at}
        subject: dict[str, Any] = {"prediction_id": loop.ids[i]}
        if i % 3 == 0:  # one subject a prediction, else the nearest entity would count first
            subject = {"model": "fraud", "keys": loop.rows[i], "event_time": loop.times[i]}
        rows.append(subject | said)
        told.append((i, (known_at, place, label, value)))
    loop.say(*rows)
    return told


def expected(told: list[Told], missing: float | None) -> float | str:
    """Return the label of a prediction, or why it is skipped."""
    label, value = max(told)[2:] if told else (None, None)
    if label is not None:
        return label if label in {0, 1} else "unusable"
    if told and (value is None or any(earlier[2] is not None for earlier in told)):
        return "retracted"
    return "without_outcome" if missing is None else missing


@pytest.mark.parametrize("seed", range(3))
def test_each_kind_of_outcome_with_each_option(outcome_loop: Loop, seed: int) -> None:
    draw = random.Random(seed)
    outcome_loop.predict(1, each=40)
    told = dict[int, list[Told]]({i: [] for i in range(40)})
    for turn in range(3):
        for i, (known_at, place, label, value) in tell(outcome_loop, draw, outcome_loop.place.now_us()):
            told[i].append((known_at, 100 * turn + place, label, value))
        outcome_loop.place.wait(DAY)
    for missing, known in product(MISSING, KNOWN):
        options = Outcomes(missing=missing, known=known, maturity=timedelta(hours=1))  # type: ignore[arg-type]
        rows, counts = outcome_loop.label_rows(options)
        right = {outcome_loop.ids[i]: expected(each, missing) for i, each in told.items()}
        labels = {id_: label for id_, label in right.items() if not isinstance(label, str)}
        assert {id_: row["outcome_label"] for id_, row in rows.items()} == labels, (missing, known)
        skipped = Counter(reason for reason in right.values() if isinstance(reason, str))
        reasons = ("without_keys", "unobserved", "unusable", "retracted", "without_outcome")
        assert {name: counts[name] for name in reasons} == {name: skipped[name] for name in reasons}
        assert counts["predictions"] == len(labels) + sum(skipped.values()) == 40
        assert counts["assumed"] == (0 if missing is None else sum(is_assumed(each) for each in told.values()))


def is_assumed(told: list[Told]) -> bool:
    return expected(told, None) == "without_outcome"
