"""The sequential test, on simulated labels that are looked at again and again."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from skewless.training.rollout.sequential import MIN_UNITS, Floats, Losses, LossSummary, Winner, analyse

ALPHA = 0.05
LOOK_EVERY = 25


def log_losses(chance: np.random.Generator, n: int, bias: float) -> Floats:
    """Log losses of a model whose log odds are off by ``bias``, on labels drawn from the true chances."""
    odds = chance.normal(-1.0, 1.0, n)
    labels = chance.random(n) < 1 / (1 + np.exp(-odds))
    told = 1 / (1 + np.exp(-(odds + bias)))
    return -np.where(labels, np.log(told), np.log1p(-told))


def of_rows(losses: Floats) -> LossSummary:
    """The summary of losses of which each is a unit."""
    return LossSummary.of(losses, np.arange(losses.size, dtype=np.uint64))


def of_looks(losses: Floats) -> list[LossSummary]:
    """The summaries of the first losses, at each look."""
    n = np.arange(1, losses.size + 1)
    means = np.cumsum(losses) / n
    squares = np.cumsum(losses**2) - n * means**2
    at = slice(LOOK_EVERY - 1, None, LOOK_EVERY)
    found = zip(n[at].tolist(), means[at].tolist(), squares[at].tolist(), strict=True)
    return [LossSummary(n=each, mean=mean, squares=square) for each, mean, square in found]


def peeked(champion: Floats, challenger: Floats) -> tuple[Winner | None, int]:
    """The first winner that any look names, and after how many labels of an arm."""
    for first, second in zip(of_looks(champion), of_looks(challenger), strict=True):
        found = analyse(Losses(champion=first, challenger=second), ALPHA)
        if found.winner:
            return found.winner, first.n
    return None, champion.size


@pytest.mark.long
def test_looking_again_and_again_names_a_false_winner_in_at_most_alpha_of_the_tests() -> None:
    chance = np.random.default_rng(11)
    runs = 400
    false = sum(
        peeked(log_losses(chance, 3_000, 0.0), log_losses(chance, 3_000, 0.0))[0] is not None for _ in range(runs)
    )
    sys.stdout.write(f"false winners: {false} of {runs} tests with {3_000 // LOOK_EVERY} looks each, alpha {ALPHA}\n")
    assert false <= ALPHA * runs


@pytest.mark.long
def test_the_same_looks_with_a_test_of_fixed_size_would_name_far_more() -> None:
    """The simulation can fail: what is not built for peeking does."""
    chance = np.random.default_rng(11)
    false = 0
    for _ in range(200):
        first, second = log_losses(chance, 3_000, 0.0), log_losses(chance, 3_000, 0.0)
        for n in range(MIN_UNITS, 3_001, LOOK_EVERY):
            error = math.sqrt(first[:n].var() / n + second[:n].var() / n)
            if abs(first[:n].mean() - second[:n].mean()) > 1.96 * error:
                false += 1
                break
    assert false > 3 * ALPHA * 200


@pytest.mark.parametrize(("bias", "winner"), [(0.0, "challenger"), (2.0, "champion")])
def test_a_real_difference_is_found_on_its_side(bias: float, winner: str) -> None:
    chance = np.random.default_rng(5)
    found = [peeked(log_losses(chance, 4_000, 1.0), log_losses(chance, 4_000, bias)) for _ in range(60)]
    right = [n for name, n in found if name == winner]
    sys.stdout.write(f"{winner} found in {len(right)} of 60, after {np.median(right):.0f} labels of an arm (median)\n")
    assert len(right) >= 57
    assert not [name for name, _ in found if name not in {winner, None}]


def test_uneven_arms_are_tested_on_the_variance_of_the_smaller_one() -> None:
    chance = np.random.default_rng(3)
    false = 0
    for _ in range(300):
        champion, challenger = log_losses(chance, 4_500, 0.0), log_losses(chance, 500, 0.0)
        for n in range(MIN_UNITS, 501, 20):
            arms = Losses(champion=of_rows(champion[: 9 * n]), challenger=of_rows(challenger[:n]))
            if analyse(arms, ALPHA).winner:
                false += 1
                break
    assert false <= ALPHA * 300


def test_labels_of_one_entity_are_no_witnesses_of_each_other() -> None:
    """Each entity has ten labels that share most of their loss, and every look takes in new entities."""
    chance = np.random.default_rng(13)
    false = {True: 0, False: 0}
    for _ in range(200):
        arms = [_of_entities(chance, 400) for _ in range(2)]
        units = np.repeat(np.arange(400, dtype=np.uint64), 10)
        for known in false:
            for n in range(MIN_UNITS * 10, 4_001, 250):
                given = units[:n] if known else np.arange(n, dtype=np.uint64)
                champion, challenger = (LossSummary.of(arm[:n], given) for arm in arms)
                if analyse(Losses(champion=champion, challenger=challenger), ALPHA).winner:
                    false[known] += 1
                    break
    sys.stdout.write(f"false winners of 200: {false[True]} by entities, {false[False]} by labels\n")
    assert false[True] <= ALPHA * 200
    assert false[False] > 3 * ALPHA * 200


def _of_entities(chance: np.random.Generator, n: int) -> Floats:
    return np.repeat(chance.exponential(0.5, n), 10) + chance.normal(0.0, 0.1, 10 * n)


def test_without_repeats_units_change_nothing() -> None:
    losses = np.random.default_rng(2).exponential(size=500)
    named = of_rows(losses)
    assert (named.n, named.mean) == (500, losses.mean())
    assert named.squares == pytest.approx(((losses - losses.mean()) ** 2).sum(), rel=1e-12)
    for look in of_looks(losses):
        of_part = of_rows(losses[: look.n])
        assert (look.mean, look.squares) == pytest.approx((of_part.mean, of_part.squares), rel=1e-9)


def test_nothing_is_said_of_few_labels() -> None:
    few, many = LossSummary(n=MIN_UNITS - 1, mean=9.0, squares=1.0), LossSummary(n=5_000, mean=0.1, squares=1.0)
    assert analyse(Losses(champion=many, challenger=few), ALPHA).winner is None
    assert analyse(Losses(champion=LossSummary(), challenger=LossSummary()), ALPHA).low == -math.inf
