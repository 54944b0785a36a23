"""What labels say of both arms: a worse challenger, a shadow, rows of other rollouts, too few labels."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pyarrow as pa

from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split
from skewless.contract.traffic import TrafficPolicy
from skewless.training.rollout.evidence import Evidence, compare_labelled
from skewless.training.rollout.sequential import analyse

SPEC = ModelSpec(
    name="m",
    service="s",
    labels=LabelSource(path="p", event_time="e", known_time="k", label="y"),
    algorithm="lightgbm",
    split=Split(test=timedelta(1)),
)
POLICY = TrafficPolicy(number=7, phase="canary", champion="000001", challenger="000002", share=0.5)


def rows(
    n: int, version: str, role: str, *, noise: float, policy: int = 7, seed: int = 0, entities: int | None = None
) -> pa.Table:
    """Labelled predictions whose scores are the true chances, blurred."""
    chance = np.random.default_rng(seed)
    odds = chance.normal(0.0, 2.0, n)
    labels = (chance.random(n) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    scores = 1 / (1 + np.exp(-(odds + chance.normal(0.0, noise, n))))
    return pa.table(
        {
            "t": np.arange(n),
            "version": [version] * n,
            "role": [role] * n,
            "policy": pa.array([policy] * n, pa.int64()),
            "score": scores,
            "scores": pa.nulls(n, pa.list_(pa.float64())),
            "label": labels,
            "unit": np.arange(n, dtype=np.uint64) % (entities or n),
            "value": 10 * labels + (0.0 if version == "000001" else -5.0),
        }
    )


def compared(*parts: pa.Table) -> Evidence:
    return compare_labelled(pa.concat_tables(parts), SPEC, POLICY, {6, 7})


def test_a_worse_challenger_is_worse_by_its_whole_interval() -> None:
    champion = rows(3_000, "000001", "champion", noise=0.0)
    found = compared(champion, rows(3_000, "000002", "challenger", noise=9.0, seed=1))
    assert found.quality is not None
    assert found.business is not None
    assert 0.1 < found.quality.low < found.quality.champion - found.quality.challenger < found.quality.high
    assert found.business.low > 3
    assert found.losses is not None
    assert found.losses.challenger.mean > found.losses.champion.mean + 0.3
    assert (found.losses.champion.n, found.losses.challenger.n) == (3_000, 3_000)


def test_rows_of_other_rollouts_do_not_count_and_a_shadow_does_until_the_challenger_answers() -> None:
    champion = rows(500, "000001", "champion", noise=0.0)
    shadow = rows(400, "000002", "shadow", noise=9.0, policy=6, seed=1)
    before = rows(900, "000002", "challenger", noise=9.0, policy=3, seed=2)
    seen = compared(champion, shadow, before).losses
    assert seen is not None
    assert seen.challenger.n == 400
    answered = compared(champion, shadow, before, rows(300, "000002", "challenger", noise=0.0, seed=3)).losses
    assert answered is not None
    assert answered.challenger.n == 300


def test_few_labels_say_nothing() -> None:
    few = compared(rows(99, "000001", "champion", noise=0.0), rows(500, "000002", "challenger", noise=9.0, seed=1))
    assert (few.quality, few.business) == (None, None)
    none = compared(rows(500, "000001", "champion", noise=0.0))
    assert (none.quality, none.business, none.losses) == (None, None, None)


def test_many_rows_of_few_entities_say_no_more_than_the_entities() -> None:
    champion = rows(3_000, "000001", "champion", noise=0.0, entities=99)
    found = compared(champion, rows(3_000, "000002", "challenger", noise=0.0, entities=99, seed=1))
    assert found.quality is None
    assert found.losses is not None
    assert (found.losses.champion.n, found.losses.challenger.n) == (99, 99)
    assert analyse(found.losses, 0.05).high == math.inf
