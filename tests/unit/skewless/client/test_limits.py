"""The pause before a repeat, and the budget that ends repeats."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from skewless.client import Limits, Retries
from skewless.client.limits import Budget
from skewless.contract.errors import DefinitionError


@pytest.mark.parametrize(("repeat", "bound"), [(0, 0.05), (1, 0.1), (4, 0.8), (5, 1.0), (60, 1.0)])
def test_a_pause_lies_between_nothing_and_its_bound(repeat: int, bound: float) -> None:
    retries = Retries()
    assert retries.pause(repeat, 0.0, 0.0) == 0.0
    assert retries.pause(repeat, 0.5, 0.0) == pytest.approx(bound / 2)


def test_what_the_server_asks_for_is_the_least_and_has_an_end() -> None:
    retries = Retries(retry_after_cap_s=3.0)
    assert retries.pause(0, 0.0, 2.0) == 2.0
    assert retries.pause(0, 1.0, 2.0) == 2.05
    assert retries.pause(0, 0.0, 10.0) == 3.0


def test_a_budget_pays_for_its_reserve_and_a_tenth_of_the_calls() -> None:
    budget = Budget(Retries())
    assert [budget.withdraw() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(10):
        assert not budget.withdraw()
        budget.deposit()
    assert budget.withdraw()
    assert not budget.withdraw()


def test_a_budget_has_an_end() -> None:
    budget = Budget(Retries(reserve=1, most=3))
    for _ in range(1_000):
        budget.deposit()
    assert [budget.withdraw() for _ in range(4)] == [True, True, True, False]


def test_threads_spend_no_token_twice() -> None:
    budget = Budget(Retries(reserve=1_000, most=1_000))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: budget.withdraw(), range(5_000)))
    assert sum(taken) == 1_000


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base_s": -1.0}, {"deposit": float("nan")}])
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match=f"retries: '{next(iter(wrong))}'"):
        Retries(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"total_s": 0.0}, {"connections": 0}, {"idle_s": float("nan")}])
def test_a_limit_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match=f"limit '{next(iter(wrong))}'"):
        Limits(**wrong)  # type: ignore[arg-type]
