"""The time that labels take, although the young ones have not come."""

from __future__ import annotations

import numpy as np

from skewless.validation.live_quality import delay_quantile


def test_the_young_do_not_make_it_short() -> None:
    rng = np.random.default_rng(8)
    delays, ages = rng.exponential(10.0, 60_000), rng.uniform(0, 60, 60_000)
    come = delays <= ages
    shown, aged = ((part[come] * 1e6).astype(np.int64) for part in (delays, ages))
    truth = float(np.quantile(delays[delays <= 60], 0.9)) * 1e6
    found, naive = delay_quantile(shown, aged), float(np.quantile(shown, 0.9))
    assert found is not None
    assert abs(found / truth - 1) < 0.03
    assert naive / truth < 0.9


def test_without_young_ones_it_is_the_plain_quantile() -> None:
    delays = np.arange(1, 101)
    assert delay_quantile(delays, np.full(100, 10**6)) == 90
    assert delay_quantile(delays, np.full(100, 10**6), 1.0) == 100


def test_no_label_has_no_delay() -> None:
    nothing = np.array([], dtype=np.int64)
    assert delay_quantile(nothing, nothing) is None


def test_labels_that_were_there_before_count_as_at_once() -> None:
    assert delay_quantile(np.array([-5, -5]), np.array([1, 1])) == 0
