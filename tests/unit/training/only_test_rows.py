"""A dataset that is nothing but test rows, and scores of known quality on them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from skewless.contract.labels import LabelSource
from skewless.contract.spec import Gate, ModelSpec, Split
from skewless.training.dataset import Dataset
from skewless.training.decision import SliceColumn
from tests.worlds.plans import make_plan, make_view

N = 400
LABELS = (np.arange(N) % 2).astype(np.float64)
RIGHT = LABELS.copy()


def make_spec(gate: Gate, **fields: Any) -> ModelSpec:  # noqa: ANN401 - of the spec
    labels = LabelSource(path="l.parquet", event_time="t", known_time="k", label="y")
    return ModelSpec(
        name="m",
        service="s",
        labels=labels,
        algorithm="lightgbm",
        split=Split(test=timedelta(days=1)),
        gate=gate,
        **fields,
    )


def wrong_in(share: float, seed: int = 1) -> NDArray[np.float64]:
    """Return scores that are right but for a share of the rows, which have chance's."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(N) < share, rng.random(N), RIGHT)


def only_test_rows(slices: dict[str, list[str]] | None = None) -> Dataset:
    """Return the dataset; ``slices`` gives a value to each row."""
    everything, none = np.ones(N, dtype=np.bool_), np.zeros(N, dtype=np.bool_)
    zeros = np.zeros(N, dtype=np.int64)
    columns = {
        name: SliceColumn(
            values=tuple(sorted(set(values))), codes=np.array([sorted(set(values)).index(v) for v in values])
        )
        for name, values in (slices or {}).items()
    }
    return Dataset(
        plan=make_plan(["v.x"], views=[make_view()]),
        names=("v__x",),
        vocabularies={},
        matrix=np.zeros((N, 1)),
        labels=LABELS,
        weights=np.ones(N),
        t=zeros,
        known=zeros,
        train=none,
        validation=none,
        test=everything,
        counts={},
        status={},
        reads=cast("Any", {}),
        request={},
        slices=columns,
    )
