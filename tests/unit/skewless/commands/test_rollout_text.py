"""The lines about a rollout that has begun: its phase, its end, and the next commands."""

from __future__ import annotations

from datetime import timedelta

import pytest

from skewless.commands.train import rollout_lines
from skewless.contract.lifecycle import Guardrails, Rollout
from skewless.contract.traffic import Phase, TrafficPolicy

ROLLOUT = Rollout(
    shadow=timedelta(hours=6),
    step=timedelta(hours=1),
    longest=timedelta(days=2),
    guardrails=Guardrails(least_requests=1_000),
)
NOON_US = 1_768_478_400_000_000


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        ("shadow", "scored as a shadow, and champion 000001 answers all requests, at least until 2026-01-15 18:00:00Z"),
        ("canary", "answers 0.1 of the entities at least until 2026-01-15 13:00:00Z, and until each version has 1,000"),
        ("ab", "answers 0.1 of the entities in an A/B test until labels decide, at most until 2026-01-17 12:00:00Z"),
    ],
)
def test_a_rollout_names_its_phase_its_end_and_the_next_commands(phase: Phase, text: str) -> None:
    policy = TrafficPolicy(number=1, phase=phase, champion="000001", challenger="000002", share=0.1, since_us=NOON_US)
    state, commands = rollout_lines("fraud", policy, ROLLOUT)
    assert state.startswith("rollout of fraud 000002: it ")
    assert text in state
    for command in ("skewless scheduler", "skewless rollout fraud", "skewless rollback fraud"):
        assert f"`{command}`" in commands


def test_a_champion_without_a_rollout_has_no_such_line() -> None:
    assert rollout_lines("fraud", TrafficPolicy(number=1, phase="champion", champion="000001"), ROLLOUT) == []
