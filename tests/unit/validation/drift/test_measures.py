"""Chance alone is called drift as seldom as declared, in windows of any size; real shifts are found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from skewless.contract.lifecycle import Watch
from skewless.validation.drift.histograms import (
    Bins,
    Histograms,
    expected_ks,
    expected_psi,
    holm,
    homogeneity,
    jensen_shannon,
    kolmogorov_smirnov,
    psi,
    smirnov,
)
from skewless.validation.drift.verdicts import compare

SHAPES = {
    "twenty equal": np.full(20, 1 / 20),
    "uneven": np.random.default_rng(3).dirichlet(np.full(20, 0.3)),
    "a rare and a common value": np.array([0.97, 0.03]),
    "two rare values": np.array([0.002, 0.99, 0.008]),
    "halving": 0.5 ** np.arange(1, 21) / (1 - 0.5**20),
}


def drawn(shape: str, rows: int, columns: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).multinomial(rows, SHAPES[shape], columns).astype(np.int64)


@pytest.mark.parametrize(
    ("trained", "n"),
    [
        pytest.param(trained, n, marks=[] if (trained, n) in {(2_000, 2_000), (50_000, 50)} else pytest.mark.soak)
        for trained in (2_000, 50_000)
        for n in (50, 200, 2_000)
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_without_drift_p_values_are_not_too_small(shape: str, trained: int, n: int) -> None:
    before, now = drawn(shape, trained, 40_000, seed=1), drawn(shape, n, 40_000, seed=2)
    for p in (homogeneity(before, now), smirnov(before, now)):
        for alpha in (0.05, 0.01, 0.0005):
            found = int((p <= alpha).sum())
            # Binomial: more than this would be chance in one of a million.
            assert found <= stats.binom.isf(1e-6, p.size, alpha), (alpha, found)


@pytest.mark.parametrize("n", [200, 2_000])
@pytest.mark.parametrize("shape", ["twenty equal", "uneven"])
def test_the_means_without_drift_are_those_of_the_papers(shape: str, n: int) -> None:
    before, now = drawn(shape, 50_000, 4_000, seed=3), drawn(shape, n, 4_000, seed=4)
    assert kolmogorov_smirnov(before, now).mean() <= expected_ks(before, now).mean()
    if shape == "twenty equal":
        assert psi(before, now).mean() == pytest.approx(expected_psi(before, now).mean(), rel=0.1)


@pytest.mark.long
@pytest.mark.parametrize("n", [50, *(pytest.param(n, marks=pytest.mark.soak) for n in (200, 2_000))])
@pytest.mark.parametrize(
    "watch",
    [  # what the first one finds in a window, the second one finds there, too
        pytest.param(Watch(least_rows=1), id="", marks=pytest.mark.soak),
        pytest.param(Watch(least_rows=1, psi=0.01, ks=0.01, js=0.01), id="low"),
    ],
)
def test_small_windows_of_many_features_do_not_cry(n: int, watch: Watch) -> None:
    """Over windows of 20 features without drift, at most ``alpha`` of the windows find any."""
    features, windows = 20, 1_000
    bins = Bins(names=tuple(map(str, range(features))), edges=(np.arange(19.0),) * features)
    rng = np.random.default_rng(5)
    shapes = rng.dirichlet(np.full(bins.width, 0.7), features)
    before = Histograms(bins=bins, counts=rng.multinomial(20_000, shapes).astype(np.int64))
    cried = 0
    for _ in range(windows):
        now = Histograms(bins=bins, counts=rng.multinomial(n, shapes).astype(np.int64))
        cried += any(column.drifted for column in compare(before, now, watch))
    assert cried <= stats.binom.isf(1e-4, windows, watch.alpha)


def test_rows_that_repeat_each_other_do_not_cry() -> None:
    """A thousand predictions that rest on forty rows of the feature log are forty draws, not a thousand."""
    rng = np.random.default_rng(9)
    bins = Bins(names=("x",), edges=(np.linspace(-3, 3, 21),))
    before = Histograms.empty(bins).add_rows({"x": rng.normal(size=50_000)})
    watch, trials = Watch(psi=0.01), 400
    cried = {1.0: 0, 25.0: 0}
    for _ in range(trials):
        now = Histograms.empty(bins).add_rows({"x": np.repeat(rng.normal(size=40), 25)})
        for repeats in cried:
            cried[repeats] += compare(before, now, watch, {"x": repeats})[0].drifted
    assert cried[1.0] > 0.9 * trials
    assert cried[25.0] <= stats.binom.isf(1e-4, trials, watch.alpha)


@pytest.mark.parametrize(("n", "sigmas"), [(200, 1.0), (2_000, 0.75), (50, 1.5)])
def test_a_real_shift_is_found(n: int, sigmas: float) -> None:
    rng = np.random.default_rng(6)
    cuts = stats.norm.ppf(np.arange(1, 20) / 20)
    bins = Bins(names=("x",), edges=(np.array([-9.0, *cuts, 9.0]),))
    before = Histograms.empty(bins).add_rows({"x": rng.normal(size=20_000)})
    found = [
        compare(before, Histograms.empty(bins).add_rows({"x": rng.normal(sigmas, 1, n)}), Watch(least_rows=1))[
            0
        ].drifted
        for _ in range(100)
    ]
    assert sum(found) >= 95


def test_a_shift_that_is_certain_but_small_is_no_drift() -> None:
    rng = np.random.default_rng(7)
    bins = Bins(names=("x",), edges=(np.linspace(-3, 3, 21),))
    before = Histograms.empty(bins).add_rows({"x": rng.normal(size=100_000)})
    (column,) = compare(before, Histograms.empty(bins).add_rows({"x": rng.normal(0.1, 1, 100_000)}), Watch())
    assert column.p < 1e-9
    assert not column.drifted


def test_windows_below_least_rows_say_nothing() -> None:
    bins = Bins(names=("x",), edges=(np.array([0.0, 1.0]),))
    before = Histograms.empty(bins).add_rows({"x": np.full(1_000, 0.5)})
    for n, drifted in ((199, False), (200, True)):
        (column,) = compare(before, Histograms.empty(bins).add_rows({"x": np.full(n, 9.0)}), Watch())
        assert (column.rows, column.drifted, column.new_share) == (n, drifted, 1.0)


def test_holm_is_the_textbook_procedure() -> None:
    rng = np.random.default_rng(8)
    p = rng.random((3, 4)) ** 3
    flat = p.ravel()
    for alpha in (0.01, 0.05, 0.2):
        rejected, left = set(), flat.size
        for i in np.argsort(flat):
            if flat[i] > alpha / left:
                break
            rejected.add(int(i))
            left -= 1
        assert set(np.flatnonzero(holm(p).ravel() <= alpha).tolist()) == rejected


@pytest.mark.parametrize("seed", range(5))
def test_the_distances_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, now = (rng.multinomial(n, rng.dirichlet(np.ones(9)), 3).astype(np.int64) for n in (5_000, 700))
    p, q = before / 5_000, now / 700
    np.testing.assert_allclose(jensen_shannon(before, now), jensenshannon(p, q, base=2, axis=1), atol=1e-12)
    np.testing.assert_allclose(
        kolmogorov_smirnov(before, now), np.abs(np.cumsum(p - q, axis=1)).max(axis=1), atol=1e-12
    )
    smooth = [(counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True) for counts in (before, now)]
    both = stats.entropy(*smooth, axis=1) + stats.entropy(*smooth[::-1], axis=1)
    np.testing.assert_allclose(psi(before, now), both, atol=1e-12)
    for i in range(3):
        table = np.stack([before[i], now[i]])
        table = table[:, table.sum(axis=0) > 0]
        expected = max(stats.chi2_contingency(table, correction=False, lambda_=kind)[1] for kind in (1, 0))
        assert homogeneity(before, now)[i] == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_empty_sides_say_nothing() -> None:
    some, none = np.array([[3, 0, 4]]), np.zeros((1, 3), dtype=np.int64)
    for before, now in ((some, none), (none, some), (none, none)):
        assert homogeneity(before, now).tolist() == [1.0]
        assert smirnov(before, now).tolist() == [1.0]
