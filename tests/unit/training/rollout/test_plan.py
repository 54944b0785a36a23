"""The state machine of a rollout, on evidence that a test makes up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from skewless.contract.errors import ConflictError
from skewless.contract.lifecycle import Guardrails, Rollout
from skewless.contract.score_differences import ScoreDifferences
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.rollout.counts import RolloutCounts
from skewless.training.rollout import plan
from skewless.training.rollout.evidence import Evidence
from skewless.training.rollout.sequential import Losses, LossSummary
from tests.unit.training.rollout.arms import arm

HOUR = 3_600_000_000
NOW = 1_768_478_400_000_000
OLD, NEW = "000001", "000002"
CANARY = Rollout(steps=(0.01, 0.1, 0.5))
GOOD = Evidence(champion=arm(), challenger=arm(seed=1))
BAD = Evidence(champion=arm(), challenger=arm(failed=300, seed=1))
BETTER = Losses(
    champion=LossSummary(n=900, mean=0.5, squares=90.0), challenger=LossSummary(n=900, mean=0.3, squares=90.0)
)


def begun(rollout: Rollout, now_us: int = NOW) -> TrafficPolicy:
    change = plan.start_rollout(None, rollout, champion=OLD, challenger=NEW, moves=1, now_us=now_us)
    assert change is not None
    return change.policy


def walk(rollout: Rollout, evidence: Evidence = GOOD, *, hours: int = 100) -> list[tuple[str, str, float, int]]:
    """Ask each hour; return kind, phase, share and hour of each change until it is over."""
    policy = begun(rollout)
    found: list[tuple[str, str, float, int]] = []
    for hour in range(hours):
        change = plan.next_change(policy, rollout, evidence, NOW + hour * HOUR)
        if change is not None:
            assert change.policy.number == policy.number + 1
            assert change.policy.reason
            found.append((change.kind, change.policy.phase, change.policy.share, hour))
            policy = change.policy
    return found


def test_a_canary_takes_every_step_and_becomes_champion() -> None:
    first = begun(CANARY)
    assert (first.phase, first.share, first.step, first.champion, first.challenger) == ("canary", 0.01, 0, OLD, NEW)
    assert walk(CANARY) == [
        ("forward", "canary", 0.1, 1),
        ("forward", "canary", 0.5, 2),
        ("won", "champion", 0.0, 3),
    ]


def test_a_shadow_comes_first_and_is_no_longer_scored_besides_after() -> None:
    rollout = replace(CANARY, shadow=timedelta(hours=5))
    policy = begun(rollout)
    assert (policy.phase, policy.share, policy.shadows) == ("shadow", 0.0, (NEW,))
    assert plan.next_change(policy, rollout, GOOD, NOW + 5 * HOUR - 1) is None
    change = plan.next_change(policy, rollout, GOOD, NOW + 5 * HOUR)
    assert change is not None
    assert (change.policy.phase, change.policy.share, change.policy.shadows) == ("canary", 0.01, ())
    assert change.policy.salt == policy.salt


def test_the_salt_stays_with_a_rollout_and_changes_with_the_next() -> None:
    first = begun(CANARY)
    change = plan.next_change(first, CANARY, GOOD, NOW + HOUR)
    assert change is not None
    assert change.policy.salt == first.salt
    after = plan.roll_back(first, "by hand", NOW, {}).policy
    again = plan.start_rollout(after, CANARY, champion=OLD, challenger=NEW, moves=1, now_us=NOW)
    assert again is not None
    assert again.policy.salt != first.salt


@pytest.mark.parametrize("shadow", [timedelta(0), timedelta(hours=2)])
def test_at_once_has_no_steps(shadow: timedelta) -> None:
    rollout = Rollout(kind="at_once", shadow=shadow, step=timedelta(0))
    if shadow:
        assert walk(rollout) == [("won", "champion", 0.0, 2)]
    else:
        assert (begun(rollout).phase, begun(rollout).champion) == ("champion", NEW)


def test_too_few_requests_hold_a_step_for_as_long_as_it_takes() -> None:
    assert walk(CANARY, Evidence(champion=arm(), challenger=arm(199, seed=1))) == []
    assert walk(CANARY, Evidence()) == []


@pytest.mark.parametrize("rollout", [CANARY, replace(CANARY, shadow=timedelta(hours=1)), Rollout(kind="ab")])
def test_a_breach_gives_the_champion_everything_at_once(rollout: Rollout) -> None:
    change = plan.next_change(begun(rollout), rollout, BAD, NOW + 1)
    assert change is not None
    assert (change.kind, change.policy.phase, change.policy.champion) == ("back", "champion", OLD)
    assert (change.policy.challenger, change.policy.share, change.policy.shadows) == (None, 0.0, ())
    assert change.policy.reason.startswith("errors breached: challenger 0.3, champion 0")
    assert change.policy.evidence is not None
    assert [one["guardrail"] for one in change.policy.evidence["guardrails"] if one["breached"]] == ["errors"]


def test_what_cannot_answer_goes_back() -> None:
    change = plan.next_change(begun(CANARY), CANARY, replace(GOOD, problem="a file is altered"), NOW)
    assert change is not None
    assert (change.kind, change.policy.reason) == ("back", f"version {NEW} cannot serve: a file is altered")


class TestClock:
    def test_a_jump_far_ahead_skips_no_step(self) -> None:
        policy, year = begun(CANARY), 8_760 * HOUR
        shares = []
        for _ in range(4):
            change = plan.next_change(policy, CANARY, GOOD, NOW + year)
            if change is None:
                break
            policy = change.policy
            shares.append(policy.share)
        assert shares == [0.1]

    def test_a_little_back_is_waited_out(self) -> None:
        assert plan.next_change(begun(CANARY), CANARY, GOOD, NOW - HOUR) is None
        assert plan.next_change(begun(CANARY), CANARY, GOOD, NOW + HOUR) is not None

    def test_far_back_starts_the_step_over_instead_of_holding_it_for_years(self) -> None:
        policy = begun(CANARY, NOW + 8_760 * HOUR)
        change = plan.next_change(policy, CANARY, GOOD, NOW)
        assert change is not None
        assert (change.kind, change.policy.since_us, change.policy.step) == ("again", NOW, policy.step)
        assert plan.next_change(change.policy, CANARY, GOOD, NOW + HOUR - 1) is None
        forward = plan.next_change(change.policy, CANARY, GOOD, NOW + HOUR)
        assert forward is not None
        assert forward.policy.share == 0.1

    def test_guardrails_need_no_clock(self) -> None:
        change = plan.next_change(begun(CANARY), CANARY, BAD, NOW - 8_760 * HOUR)
        assert change is not None
        assert change.kind == "back"


class TestAB:
    AB = Rollout(kind="ab", share=0.3, longest=timedelta(days=2), guardrails=Guardrails())

    def test_shares_are_fixed_until_the_test_has_decided(self) -> None:
        policy = begun(self.AB)
        assert (policy.phase, policy.share) == ("ab", 0.3)
        undecided = replace(GOOD, losses=Losses(champion=BETTER.champion, challenger=BETTER.champion))
        assert plan.next_change(policy, self.AB, undecided, NOW + 47 * HOUR) is None
        won = plan.next_change(policy, self.AB, replace(GOOD, losses=BETTER), NOW + 1)
        assert won is not None
        assert (won.kind, won.policy.champion) == ("won", NEW)
        assert won.policy.evidence is not None
        assert won.policy.evidence["test"]["winner"] == "challenger"

    def test_a_loser_goes_back(self) -> None:
        worse = Losses(champion=BETTER.challenger, challenger=BETTER.champion)
        lost = plan.next_change(begun(self.AB), self.AB, replace(GOOD, losses=worse), NOW + 1)
        assert lost is not None
        assert (lost.kind, lost.policy.champion) == ("back", OLD)

    def test_what_has_not_decided_in_time_leaves_the_champion(self) -> None:
        ended = plan.next_change(begun(self.AB), self.AB, GOOD, NOW + 48 * HOUR)
        assert ended is not None
        assert (ended.kind, ended.policy.champion) == ("back", OLD)
        assert "not decided within 2 d" in ended.policy.reason


class TestBegin:
    def test_twice_is_once(self) -> None:
        assert plan.start_rollout(begun(CANARY), CANARY, champion=OLD, challenger=NEW, moves=1, now_us=NOW) is None
        assert plan.start_rollout(None, CANARY, champion=NEW, challenger=NEW, moves=1, now_us=NOW) is None

    def test_a_second_version_waits(self) -> None:
        with pytest.raises(
            ConflictError, match="rollout of version 000002: is in progress, so the rollout of version 000003"
        ):
            plan.start_rollout(begun(CANARY), CANARY, champion=OLD, challenger="000003", moves=1, now_us=NOW)

    def test_without_a_champion_a_version_takes_over_at_once(self) -> None:
        change = plan.start_rollout(None, CANARY, champion=None, challenger=NEW, moves=0, now_us=NOW)
        assert change is not None
        assert (change.kind, change.policy.phase, change.policy.champion) == ("won", "champion", NEW)


class TestFollow:
    def test_a_hand_that_moved_the_alias_ends_the_rollout(self) -> None:
        change = plan.follow_alias(begun(CANARY), "000003", 2, "by hand", NOW)
        assert change is not None
        assert (change.kind, change.policy.champion, change.policy.challenger) == ("follow", "000003", None)
        assert change.policy.moves == 2
        assert "by hand" in change.policy.reason

    def test_an_alias_that_lags_is_not_followed(self) -> None:
        won = plan.next_change(begun(Rollout(steps=(0.5,))), Rollout(steps=(0.5,)), GOOD, NOW + HOUR)
        assert won is not None
        assert plan.follow_alias(won.policy, OLD, 1, "first", NOW) is None


def test_what_a_shadow_scored_differently_is_evidence() -> None:
    pairs = np.array([[0.1, 0.2], [0.2, 0.4], [0.3, 0.5]])
    seen = replace(GOOD, challenger=replace(arm(), differences=ScoreDifferences(rows=3, total=0.5, pairs=pairs)))
    found = plan.encode_evidence(seen, [])["differences"]
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["mean"] == pytest.approx(0.5 / 3)
    assert found["quantiles"]["0.5"] == pytest.approx(0.2)
    assert plan.encode_evidence(replace(GOOD, challenger=RolloutCounts()), [])["differences"] is None
