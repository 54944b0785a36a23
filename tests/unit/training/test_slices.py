"""Slices of the test rows: which there are, and when one is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.spec import Gate
from skewless.training.decision import SliceColumn, measure_slice_gains
from skewless.validation.evaluation.bootstrap import ScorePair, paired_gain
from tests.unit.training.only_test_rows import LABELS, RIGHT, N, wrong_in

PAIR = ScorePair(labels=LABELS, candidate=wrong_in(0.4), champion=wrong_in(0.3, seed=2))


def column(values: list[Any]) -> SliceColumn:
    return SliceColumn.of(pa.chunked_array([values]))


def test_null_is_a_value_and_parts_keep_their_names() -> None:
    found = column([7, None, 8, 7])
    assert (found.values, found.codes.tolist()) == (("7", "null", "8"), [0, 1, 2, 0])
    part = found.only(np.array([False, True, True, False]))
    assert [part.values[code] for code in part.codes] == ["null", "8"]


def test_slices_with_too_few_rows_or_one_class_are_left_out() -> None:
    few = column(["few" if row < 99 else "many" for row in range(N)])
    by_label = column([f"label {label:.0f}" for label in LABELS])
    rare = column(["rare" if label == 0 or row > 382 else "rest" for row, label in enumerate(LABELS)])
    found = measure_slice_gains(PAIR, {"few": few, "label": by_label, "rare": rare}, Gate(), 1)
    assert {(each.column, each.value) for each in found} == {("few", "many")}


def test_the_gain_of_a_slice_is_that_of_its_rows() -> None:
    half = np.arange(N) < N // 2
    found = measure_slice_gains(PAIR, {"half": column(half.tolist())}, Gate(confidence=0.9), 1)
    assert {each.value for each in found} == {"True", "False"}
    for each in found:
        alone = paired_gain(PAIR.only(half == (each.value == "True")), "auc", confidence=0.95, resamples=4_000)
        assert (each.gain.gain, each.gain.rows) == (alone.gain, N // 2)
        assert each.gain.confidence == 0.95  # 0.9 for both together
        assert each.gain.low is not None
        assert each.gain.high is not None
        assert alone.low is not None
        assert alone.high is not None
        width = alone.high - alone.low
        assert abs(each.gain.high - alone.high) < 0.15 * width
        assert abs(each.gain.low - alone.low) < 0.15 * width


def test_the_worst_come_first_and_only_certain_losses_are_lost() -> None:
    quarter = np.arange(N) // (N // 4)
    candidate = np.where(quarter == 2, 1 - RIGHT, wrong_in(0.2))
    pair = ScorePair(labels=LABELS, candidate=candidate, champion=wrong_in(0.2, seed=3))
    found = measure_slice_gains(pair, {"quarter": column(quarter.tolist())}, Gate(slice_tolerance=0.0), 1)
    assert [each.lost for each in found] == [True, False, False, False]
    assert found[0].value == "2"
    highs = [each.gain.high for each in found if each.gain.high is not None]
    assert highs == sorted(highs)
    assert "quarter 2: auc 0.0000 against" in found[0].sentence


def test_more_slices_make_wider_intervals() -> None:
    half = {"half": column((np.arange(N) < N // 2).tolist())}
    more = half | {f"other {i}": column((np.arange(N) < N // 2).tolist()) for i in range(9)}
    alone, among = (
        next(each.gain for each in measure_slice_gains(PAIR, columns, Gate(), 1) if each.column == "half")
        for columns in (half, more)
    )
    assert alone.high is not None
    assert among.high is not None
    assert among.high > alone.high


def test_a_ranking_needs_queries_not_rows() -> None:
    pair = ScorePair(labels=LABELS, candidate=RIGHT, champion=RIGHT, task="ranking", groups=np.arange(N) // 50)
    assert measure_slice_gains(pair, {"all": column(["x"] * N)}, Gate(metric="ndcg"), 1) == ()
    many = ScorePair(labels=LABELS, candidate=RIGHT, champion=RIGHT, task="ranking", groups=np.arange(N) // 4)
    (found,) = measure_slice_gains(many, {"all": column(["x"] * N)}, Gate(metric="ndcg"), 1)
    assert (found.gain.gain, found.lost) == (0.0, False)
