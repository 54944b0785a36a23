"""Rollouts of a real version: each step, each end, and two hands at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, PackageError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.store import Traffic
from skewless.infra.models.rollout.counts import RolloutCounts
from skewless.infra.platform.alerts.alerts import open_alerts
from skewless.infra.platform.storage.documents import Documents
from skewless.operations.models import rollout
from skewless.project import Project
from skewless.training.train import train
from tests.unit.training.rollout.arms import arm
from tests.worlds.command_line import done, run
from tests.worlds.rollouts import NEW, OLD, champion, count, standing
from tests.worlds.trained import MODEL, Sandbox, copy_project, opened

TEN_MINUTES = 600


@pytest.fixture
def spot(two_versions: Path, tmp_path: Path) -> Iterator[Sandbox]:
    with opened(copy_project(two_versions, tmp_path / "p")) as place:
        yield place


def phases(project: Project) -> list[tuple[str, float]]:
    return [(policy.phase, policy.share) for policy in project.store.traffic.history(MODEL)]


def test_a_version_takes_every_step_and_the_alias_follows(spot: Sandbox) -> None:
    project = spot.project
    assert rollout.begin_rollout(project, MODEL, NEW).change == "begin"
    assert rollout.begin_rollout(project, MODEL, NEW).change is None
    for _ in range(2):
        count(project, champion=arm(), challenger=arm(seed=1))
        assert rollout.step_rollout(project, MODEL).change is None
        spot.wait(TEN_MINUTES)
        rollout.step_rollout(project, MODEL)
    assert phases(project) == [("canary", 0.1), ("canary", 0.5), ("champion", 0.0)]
    assert champion(project) == NEW
    last = project.store.aliases.history(MODEL, "champion")[-1]
    assert last.reason == standing(project).reason
    assert "all guardrails held for 10 min" in last.reason
    assert not rollout.needs_step(project, MODEL)
    assert open_alerts(project.state) == []


def test_counts_of_an_earlier_step_do_not_carry_the_next(spot: Sandbox) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    count(project, champion=arm(), challenger=arm(seed=1))
    spot.wait(TEN_MINUTES)
    assert rollout.step_rollout(project, MODEL).change == "forward"
    spot.wait(TEN_MINUTES)
    assert rollout.step_rollout(project, MODEL).change is None


def test_a_breach_goes_back_and_raises_an_alert_that_the_next_rollout_resolves(spot: Sandbox) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    count(project, champion=arm(), challenger=arm(failed=400, seed=1))
    outcome = rollout.step_rollout(project, MODEL)
    assert (outcome.change, champion(project), standing(project).phase) == ("back", OLD, "champion")
    (alert,) = open_alerts(project.state)
    assert (alert.name, alert.subject, alert.severity) == ("rollout", MODEL, "critical")
    assert alert.message.startswith(f"rolled back to version {OLD}: errors breached: challenger 0.4, champion 0")
    assert [one["guardrail"] for one in alert.evidence["guardrails"] if one["breached"]] == ["errors"]
    rollout.begin_rollout(project, MODEL, NEW)
    assert open_alerts(project.state) == []


def test_an_alert_that_cannot_be_kept_hinders_no_rollback(spot: Sandbox) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    Documents(project.state.database, "alerts").put("project", [{}])
    count(project, champion=arm(), challenger=arm(failed=400, seed=1))
    assert rollout.step_rollout(project, MODEL).change == "back"


@pytest.mark.parametrize("asked", [pytest.param(False, marks=pytest.mark.soak), True])
def test_a_version_that_cannot_be_loaded_ends_its_rollout(spot: Sandbox, asked: bool) -> None:  # noqa: FBT001 - a case
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    if asked:
        count(project, champion=arm(), challenger=arm(seed=1))
    (project.packages.root / MODEL / NEW / "metrics.json").write_text("{}")
    spot.wait(TEN_MINUTES)
    assert rollout.step_rollout(project, MODEL).change == "back"
    assert champion(project) == OLD
    assert "cannot serve: package 'fraud' version '000002' has an altered file" in standing(project).reason


def test_one_that_cannot_be_loaded_does_not_begin(spot: Sandbox) -> None:
    (spot.project.packages.root / MODEL / NEW / "metrics.json").write_text("{}")
    with pytest.raises(PackageError):
        rollout.begin_rollout(spot.project, MODEL, NEW)
    assert phases(spot.project) == []


def test_by_hand_a_rollout_ends_or_the_champion_before_returns(spot: Sandbox) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    assert rollout.rollback(project, MODEL, reason="looks wrong").change == "back"
    assert (standing(project).phase, standing(project).reason, champion(project)) == ("champion", "looks wrong", OLD)
    with pytest.raises(PackageError, match="has no earlier champion"):
        rollout.rollback(project, MODEL, reason="again")
    project.store.aliases.move(MODEL, "champion", expect=OLD, to=NEW, reason="by hand", now_us=1)
    assert rollout.rollback(project, MODEL, reason="looks wrong").policy == standing(project)
    assert (standing(project).champion, champion(project)) == (OLD, OLD)
    with pytest.raises(PackageError, match="has no earlier champion"):
        rollout.rollback(project, MODEL, reason="again")


def test_a_hand_that_moves_the_alias_ends_the_rollout(spot: Sandbox) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    project.store.aliases.move(MODEL, "champion", expect=OLD, to=NEW, reason="I know better", now_us=1)
    assert rollout.needs_step(project, MODEL)
    outcome = rollout.step_rollout(project, MODEL)
    assert outcome.policy is not None
    assert (outcome.policy.phase, outcome.policy.champion) == ("champion", NEW)
    assert "I know better" in outcome.policy.reason


def race(spot: Sandbox, monkeypatch: pytest.MonkeyPatch, *, expect: str, to: str) -> None:
    """Move the alias by another hand just before the next policy is written."""
    real = Traffic.replace

    def raced(self: Traffic, model: str, policy: TrafficPolicy, *, expect: int | None) -> TrafficPolicy:
        monkeypatch.setattr(Traffic, "replace", real)
        hand()
        return real(self, model, policy, expect=expect)

    def hand() -> None:
        spot.project.store.aliases.move(MODEL, "champion", expect=expect, to=to, reason="at once", now_us=1)

    monkeypatch.setattr(Traffic, "replace", raced)


def test_a_policy_that_follows_the_alias_never_undoes_a_promotion_beside_it(
    spot: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    rollout.rollback(project, MODEL, reason="looks wrong")
    project.store.aliases.move(MODEL, "champion", expect=OLD, to=NEW, reason="I know better", now_us=1)
    race(spot, monkeypatch, expect=NEW, to=OLD)
    rollout.step_rollout(project, MODEL)
    assert champion(project) == OLD
    rollout.step_rollout(project, MODEL)
    assert (standing(project).champion, champion(project)) == (OLD, OLD)
    assert not rollout.needs_step(project, MODEL)


def test_a_rollback_beside_a_promotion_is_told_and_undoes_nothing(
    spot: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = spot.project
    shape = replace(project.applied.model(MODEL), rounds=3)
    third = train(project.training_set(MODEL), shape, project.store, threads=1, now_us=spot.now_us()).package.version
    project.store.aliases.move(MODEL, "champion", expect=OLD, to=NEW, reason="by hand", now_us=1)
    race(spot, monkeypatch, expect=NEW, to=third)
    with pytest.raises(ConflictError, match=f"moved by another process meanwhile.*'{third}'"):
        rollout.rollback(project, MODEL, reason="looks wrong")
    assert champion(project) == third
    rollout.step_rollout(project, MODEL)
    assert (standing(project).champion, champion(project)) == (third, third)


def test_an_alias_that_lags_behind_its_policy_is_moved(spot: Sandbox) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    policy = standing(project)
    won = replace(policy, phase="champion", champion=NEW, challenger=None, share=0.0, reason="won")
    project.store.traffic.replace(MODEL, won, expect=policy.number)
    assert champion(project) == OLD
    assert rollout.needs_step(project, MODEL)
    rollout.step_rollout(project, MODEL)
    assert (champion(project), standing(project).number) == (NEW, policy.number + 1)


def test_a_rollback_that_came_between_wins_over_the_step(spot: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    count(project, champion=arm(), challenger=arm(seed=1))
    spot.wait(TEN_MINUTES)
    apply = rollout._apply

    def late(*arguments: object) -> object:
        monkeypatch.setattr(rollout, "_apply", apply)
        rollout.rollback(project, MODEL, reason="by hand")
        return apply(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rollout, "_apply", late)
    with pytest.raises(ConflictError, match="is under policy 2, not 1"):
        rollout.step_rollout(project, MODEL)
    assert (standing(project).reason, champion(project)) == ("by hand", OLD)


def test_a_second_version_waits_for_the_end_of_the_first(spot: Sandbox) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    shape = replace(project.applied.model(MODEL), rounds=3)
    third = train(project.training_set(MODEL), shape, project.store, threads=1, now_us=spot.now_us()).package.version
    with pytest.raises(ConflictError, match="rollout of version 000002: is in progress"):
        rollout.begin_rollout(project, MODEL, third)


def test_the_commands_say_what_the_operations_did(spot: Sandbox) -> None:
    repo = spot.repo
    assert done("rollout", "--repo", repo)["models"] == [
        {"model": MODEL, "under_way": False, "change": None, "policy": None, "guardrails": []}
    ]
    dry = done("rollout", MODEL, "--begin", NEW, "--dry-run", "--repo", repo)
    assert (dry["dry_run"], dry["models"][0]["policy"]["share"]) == (True, 0.1)
    assert phases(spot.project) == []
    (begun,) = done("rollout", MODEL, "--begin", NEW, "--repo", repo)["models"]
    assert (begun["change"], begun["policy"]["share"]) == ("begin", 0.1)
    count(spot.project, champion=arm(), challenger=RolloutCounts(requests=50, failed=50))
    shown = run("rollout", MODEL, "--repo", repo).stdout
    assert "breached" in shown
    assert "too few data" in shown
    (stepped,) = done("rollout", MODEL, "--step", "--repo", repo)["models"]
    assert (stepped["change"], stepped["policy"]["champion"]) == ("back", OLD)
    assert run("rollback", MODEL, "--dry-run", "--repo", repo, "--json").code == 8
    done("rollout", MODEL, "--begin", NEW, "--repo", repo)
    assert done("rollback", MODEL, "--dry-run", "--repo", repo)["policy"]["champion"] == OLD
    assert standing(spot.project).phase == "canary"
    assert (
        "receives all traffic again: too slow" in run("rollback", MODEL, "--reason", "too slow", "--repo", repo).stdout
    )
    assert standing(spot.project).reason == "too slow"
