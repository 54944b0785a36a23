"""What is counted of a model's answers: the same whether rows are scored together or one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.contract.status import Status
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.reads.online.service_vectors import ServiceVectors
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import ModelCounts
from skewless.serving.prediction.scored_batch import ScoredBatch
from tests.unit.serving.metrics.test_metrics import at, shown
from tests.unit.serving.standing_in import ModelShape
from tests.worlds.plans import make_plan, make_view

N = 20
T = 1_000
PLAN = make_plan(["v.x", "w.x"], views=[make_view("v"), make_view("w", freshness_us=50)])
TIMES = st.sampled_from([0, T - 51, T - 50, T - 1, T])


def scored(
    status: list[tuple[Status, Status]], event_ts: list[tuple[int, int]], watermark: tuple[int, int]
) -> ScoredBatch:
    n = len(status)
    vectors = ServiceVectors(
        matrix=np.zeros((n, 2)),
        status=np.array(status, dtype=np.uint8),
        event_ts=np.array(event_ts, dtype=np.int64),
        watermark=np.array(watermark, dtype=np.int64),
        versions={},
        applied={},
    )
    return ScoredBatch(
        model=cast("ServedModel", ModelShape(plan=PLAN)),
        ids=[f"p-{i}" for i in range(n)],
        t=T,
        scores=np.zeros(n),
        matrix=vectors.matrix,
        vectors=vectors,
        degraded=False,
    )


def parts(whole: ScoredBatch) -> list[ScoredBatch]:
    """Return each row as if it had been scored alone."""
    found = whole.vectors
    assert found is not None
    return [
        replace(
            whole,
            ids=[name],
            vectors=found._replace(status=found.status[i : i + 1], event_ts=found.event_ts[i : i + 1]),
        )
        for i, name in enumerate(whole.ids)
    ]


def counted(*each: ScoredBatch) -> dict[object, float]:
    metrics = Metrics()
    counts = ModelCounts(metrics, each[0].model)
    for one in each:
        counts.count(one, 1)
    samples = shown(metrics)
    names = ("skewless_stale_reads", "skewless_feature_reads", "skewless_feature_age_seconds_bucket")
    return {key: value for key, value in samples.items() if key[0].startswith(names)}


def rows(statuses: st.SearchStrategy[Status]) -> st.SearchStrategy[list[tuple[Status, Status]]]:
    return st.lists(st.tuples(statuses, statuses), min_size=N, max_size=N)


@settings(deadline=None)
@given(
    rows(st.sampled_from([Status.PRESENT, Status.EXPIRED, Status.UNAVAILABLE])),
    st.lists(st.tuples(TIMES, TIMES), min_size=N, max_size=N),
    st.tuples(TIMES, TIMES),
)
def test_8_4_rows_are_counted_alike_together_and_alone(
    status: list[tuple[Status, Status]], event_ts: list[tuple[int, int]], watermark: tuple[int, int]
) -> None:
    whole = scored(status, event_ts, watermark)
    samples = counted(whole)
    assert samples == counted(*parts(whole))
    assert samples[at("skewless_stale_reads_total", view="w")] == whole.stale[:, 1].sum()
    assert samples[at("skewless_stale_reads_total", view="v")] == 0


def test_8_4_an_entity_without_a_row_in_a_frozen_view_is_counted_alike_together_and_alone() -> None:
    whole = scored([(Status.NOT_FOUND, Status.NOT_FOUND)] * N, [(0, 0)] * N, (T - 51, T - 51))
    assert whole.stale.tolist() == [[False, True]] * N
    assert counted(whole) == counted(*parts(whole))


@pytest.mark.parametrize(("watermark", "age"), [(T, 0.0), (T + 9, 0.0), (T - 400, 0.0004), (0, np.nan)])
def test_8_4_the_age_of_a_watermark_is_never_negative_and_unknown_where_it_is(watermark: int, age: float) -> None:
    whole = scored([(Status.PRESENT, Status.PRESENT)], [(T, T)], (watermark, T))
    np.testing.assert_array_equal(whole.watermark_ages_s, [age, 0.0])


@pytest.mark.parametrize(
    ("status", "event_ts", "watermark", "stale"),
    [
        (Status.PRESENT, T, T, False),
        (Status.PRESENT, T - 50, T - 50, False),
        (Status.PRESENT, T - 51, T, True),  # the row is old
        (Status.PRESENT, T, T - 51, True),  # nobody updates the view
        (Status.PRESENT, T, 0, True),
        (Status.NOT_FOUND, 0, T, False),
        (Status.NOT_FOUND, 0, T - 51, True),
        (Status.EXPIRED, T - 51, T, True),
        (Status.UNAVAILABLE, 0, 0, False),
    ],
)
def test_8_4_a_view_is_stale_where_its_row_or_all_of_it_is_too_old(
    status: Status, event_ts: int, watermark: int, *, stale: bool
) -> None:
    whole = scored([(status, status)], [(event_ts, event_ts)], (watermark, watermark))
    assert whole.stale.tolist() == [[False, stale]], "the first view has no limit"
