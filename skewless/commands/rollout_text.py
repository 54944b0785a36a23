"""A rollout that has begun, as people read it: its phase, its end, and the commands that show, advance or end it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from skewless.operations.readable import time_text

if TYPE_CHECKING:
    from skewless.contract.lifecycle import Rollout
    from skewless.contract.traffic import TrafficPolicy
    from skewless.project import Project


def read_rollout_lines(project: Project, model: str) -> list[str]:
    """Return what happens next in a model's rollout; empty: it has none."""
    from skewless.operations.rollout import rollout_of

    policy = project.store.traffic.get(model)
    return [] if policy is None else rollout_lines(model, policy, rollout_of(project, model))


def rollout_lines(model: str, policy: TrafficPolicy, rollout: Rollout) -> list[str]:
    """Return a line about the phase and its end, and a line with the next commands; empty without a rollout."""
    from skewless.training.rollout.plan import phase_duration

    if policy.challenger is None:
        return []
    end = time_text(policy.since_us + phase_duration(policy, rollout) // timedelta(microseconds=1))
    traffic = {
        "shadow": f"is scored as a shadow, and champion {policy.champion} answers all requests,",
        "ab": f"answers {policy.share:.4g} of the entities in an A/B test",
    }.get(policy.phase, f"answers {policy.share:.4g} of the entities")
    least = f"at least until {end}, and until each version has {rollout.guardrails.least_requests:,} requests"
    until = f"until labels decide, at most until {end}" if policy.phase == "ab" else least
    commands = (
        f"`skewless scheduler` advances it (or `skewless rollout {model} --step`, once);"
        f" `skewless rollout {model}` shows it; `skewless rollback {model}` ends it"
    )
    return [f"rollout of {model} {policy.challenger}: it {traffic} {until}", f"next: {commands}"]
