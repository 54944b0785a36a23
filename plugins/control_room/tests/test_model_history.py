"""What a traffic policy changed."""

from __future__ import annotations

from dataclasses import replace

from skewless.contract.traffic import TrafficPolicy
from skewless_control_room.model_history import change_of


def test_a_policy_tells_what_it_changed() -> None:
    alone = TrafficPolicy(number=1, phase="champion", champion="000001")
    trial = replace(alone, phase="canary", challenger="000002", share=0.1)
    won = replace(alone, champion="000002")
    seen = [change_of(None, alone), change_of(alone, trial), change_of(trial, won), change_of(trial, alone)]
    assert [*seen, change_of(won, alone)] == ["traffic", "traffic", "promoted", "rolled back", "rolled back"]
