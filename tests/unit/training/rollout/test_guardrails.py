"""Guardrails: what is worse is found, what chance explains is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from skewless.contract.lifecycle import Guardrails
from skewless.infra.models.rollout.counts import RolloutCounts
from skewless.training.rollout.evidence import Evidence, MeanComparison, counts_since
from skewless.training.rollout.guardrails import Verdict, _interval, judge
from tests.unit.training.rollout.arms import arm

LIMITS = Guardrails(business=0.1)


def judged(
    champion: RolloutCounts,
    challenger: RolloutCounts,
    quality: MeanComparison | None = None,
    business: MeanComparison | None = None,
) -> dict[str, Verdict]:
    evidence = Evidence(champion=champion, challenger=challenger, quality=quality, business=business)
    return {verdict.guardrail: verdict for verdict in judge(LIMITS, evidence)}


def breached(
    champion: RolloutCounts,
    challenger: RolloutCounts,
    quality: MeanComparison | None = None,
    business: MeanComparison | None = None,
) -> set[str]:
    return {name for name, verdict in judged(champion, challenger, quality, business).items() if verdict.breached}


@pytest.mark.parametrize(
    ("challenger", "guardrails"),
    [
        (arm(failed=60, seed=1), {"errors"}),
        (arm(seconds=0.04, seed=1), {"latency", "latency_median"}),
        (arm(odds=1.0, seed=1), {"score_shift"}),
        (arm(missing=0.4, seed=1), {"missing"}),
    ],
)
def test_each_fault_breaks_its_own_guardrail(challenger: RolloutCounts, guardrails: set[str]) -> None:
    assert breached(arm(), challenger) == guardrails
    assert breached(challenger, arm()) - {"score_shift"} == set()


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 200), (199, 200), (40_000, 1_000_000)])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(k: int, n: int) -> None:
    exact = binomtest(k, n).proportion_ci(confidence_level=1 - 1e-4, method="exact")
    assert _interval(k, n) == pytest.approx((exact.low, exact.high), rel=1e-12)


def test_arms_that_are_the_same_break_nothing_at_any_size() -> None:
    for seed in range(150):
        sizes = np.random.default_rng(seed).integers(200, 3_000, 2)
        champion = arm(int(sizes[0]), failed=2, seed=2 * seed)
        assert breached(champion, arm(int(sizes[1]), failed=2, seed=2 * seed + 1)) == set(), seed


def test_the_psi_of_few_scores_of_one_population_is_above_the_limit_but_is_not_believed() -> None:
    limits = replace(LIMITS, least_requests=20)
    plain = believed = 0
    for seed in range(200):
        evidence = Evidence(champion=arm(40, seed=2 * seed), challenger=arm(40, seed=2 * seed + 1))
        verdict = {one.guardrail: one for one in judge(limits, evidence)}["score_shift"]
        plain += verdict.worse is not None and verdict.worse > verdict.limit
        believed += verdict.breached
    assert plain > 50
    assert believed == 0


def test_failures_are_judged_from_the_first_requests_and_everything_else_waits() -> None:
    few = RolloutCounts(requests=4, failed=4)
    assert breached(arm(), few) == {"errors"}
    assert breached(arm(), RolloutCounts(requests=1, failed=1)) == set()
    slow_and_shifted = arm(199, seconds=1.0, odds=3.0, missing=0.9)
    assert breached(arm(), slow_and_shifted) == set()
    everything = {"latency", "latency_median", "score_shift", "missing"}
    assert breached(arm(), arm(200, seconds=1.0, odds=3.0, missing=0.9)) == everything


def test_a_challenger_that_holds_up_the_champion_is_found_by_its_median() -> None:
    """One request of the champion in ten waited for the challenger's, which are all slow."""
    quick, waited = arm(900, seed=1), arm(100, seconds=0.05, seed=2)
    assert breached(quick + waited, arm(1_000, seconds=0.06, seed=3)) == {"latency_median"}


@pytest.mark.long
def test_failures_that_chance_explains_do_not_break_it_at_any_of_many_looks() -> None:
    chance, back = np.random.default_rng(2), 0
    champion, errors = (
        RolloutCounts(requests=20_000, failed=400),
        Guardrails(latency=None, score_shift=None, missing=None),
    )
    for _ in range(300):
        fails = np.cumsum(binom.rvs(10, 0.02, size=20, random_state=chance))
        looks = (RolloutCounts(requests=10 * (i + 1), failed=int(k)) for i, k in enumerate(fails))
        back += any(judge(errors, Evidence(champion=champion, challenger=look))[0].breached for look in looks)
    assert back == 0


def test_a_champion_that_fails_as_often_excuses_the_challenger() -> None:
    assert "errors" in breached(arm(failed=0), arm(failed=80, seed=1))
    assert "errors" not in breached(arm(failed=80), arm(failed=80, seed=1))


def test_quality_and_business_are_judged_by_the_lower_end_of_their_interval() -> None:
    worse = MeanComparison(champion=0.7, challenger=0.6, low=0.03, high=0.17)
    unsure = replace(worse, low=0.01)
    assert breached(arm(), arm(seed=1), quality=worse) == {"quality"}
    assert breached(arm(), arm(seed=1), quality=unsure) == set()
    assert breached(arm(), arm(seed=1), business=replace(worse, low=0.11)) == {"business"}
    assert judged(arm(), arm(seed=1))["quality"].least is None


def test_a_guardrail_that_is_off_says_nothing() -> None:
    off = Guardrails(errors=None, latency=None, score_shift=None, missing=None, quality=None)
    assert judge(off, Evidence(champion=arm(), challenger=arm(failed=900))) == []


def test_nothing_counted_is_not_judged() -> None:
    verdicts = judge(LIMITS, Evidence())
    assert [verdict.least for verdict in verdicts] == [None] * 7
    assert {verdict.sentence() for verdict in verdicts} >= {"errors: not judged yet, has too little data"}
    assert verdicts[1].as_dict()["champion"] is None


def test_a_verdict_names_its_numbers() -> None:
    verdict = judged(arm(), arm(failed=500, seed=1))["errors"]
    assert verdict.sentence().startswith("errors breached: challenger 0.5, champion 0, at least 0.4")
    assert verdict.sentence().endswith("worse, limit 0.01")
    assert verdict.as_dict()["breached"] is True


@pytest.mark.parametrize(
    ("late", "guardrail"),
    [
        (arm(60, failed=60), "errors"),
        (arm(300, seconds=0.05, seed=3), "latency_median"),
        (arm(300, odds=1.5, seed=3), "score_shift"),
        (arm(300, missing=0.6, seed=3), "missing"),
    ],
)
def test_what_goes_wrong_late_is_found_in_what_is_recent(late: RolloutCounts, guardrail: str) -> None:
    earlier = arm(20_000, seed=1)
    champion = arm(20_000) + arm(300, seed=2)
    assert guardrail not in breached(champion, earlier + late)
    evidence = Evidence(
        champion=champion,
        challenger=earlier + late,
        recent_champion=counts_since(champion, arm(20_000)),
        recent_challenger=counts_since(earlier + late, earlier),
    )
    assert guardrail in {verdict.guardrail for verdict in judge(LIMITS, evidence) if verdict.breached}


def test_counts_that_began_anew_have_no_recent_part() -> None:
    assert counts_since(arm(100), arm(200)) is None
