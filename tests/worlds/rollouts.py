"""A trained project whose model declares a rollout, with a second version, and counts as servers would write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.rollout.counts import PolicyCounts, RolloutCounts, write_counts
from skewless.project import Project
from skewless.training.train import train
from tests.worlds.trained import MODEL, copy_project, opened

OLD, NEW = "000001", "000002"
CANARY = "Rollout(steps=(0.1, 0.5), step=timedelta(minutes=10), guardrails=Guardrails(least_requests=100))"


def declare(repo: Path, rollout: str) -> None:
    """Write a rollout into the definitions; they are to be applied."""
    models = repo / "models.py"
    text = models.read_text().replace(
        "from skewless import", "from skewless import Guardrails, Rollout\nfrom skewless import"
    )
    models.write_text(text.replace("rounds=50,", f"rounds=50,\n        rollout={rollout},"))


def make_rollout(trained: Path, repo: Path, rollout: str = CANARY, *, rounds: int = 7) -> Path:
    """Copy a trained project, declare a rollout, and train a second version that is not yet under way."""
    copy_project(trained, repo)
    declare(repo, rollout)
    with opened(repo) as place:
        place.project.apply()
        spec, dataset = place.project.applied.model(MODEL), place.project.training_set(MODEL)
        train(dataset, replace(spec, rounds=rounds), place.project.store, threads=1, now_us=place.now_us())
    return repo


def count(project: Project, **arms: RolloutCounts) -> None:
    """Let one server have counted this under the policy in force: ``champion=``, ``challenger=``."""
    policy = standing(project)
    versions = {version: item for arm, item in arms.items() if (version := getattr(policy, arm)) is not None}
    write_counts(project.state, "one", {MODEL: PolicyCounts(policy=policy.number, versions=versions)})


def standing(project: Project) -> TrafficPolicy:
    """Return the policy in force."""
    policy = project.store.traffic.get(MODEL)
    assert policy is not None
    return policy


def champion(project: Project) -> str | None:
    """Return the holder of the alias."""
    return project.store.aliases.get(MODEL, "champion")
