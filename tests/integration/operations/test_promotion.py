"""Versions compared and promoted by hand: planned, shown, applied; two hands at once; at once or by a rollout."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, PackageError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.schema import copy_tables
from skewless.operations.models.versions import Promotion, apply_promotion, plan_promotion, read_versions
from skewless.operations.models.versions import train as train_model
from skewless.training.train import train
from tests.servers.postgres import address_of
from tests.worlds.command_line import done, fingerprint, run
from tests.worlds.decisions import last_decision
from tests.worlds.rollouts import NEW, OLD, champion, declare
from tests.worlds.trained import MODEL, Sandbox, copy_project, open_project, opened

WEAK = "000003"


@pytest.fixture(scope="session")
def three_versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose champion is ``OLD``; ``NEW`` is as good, ``WEAK`` has learnt next to nothing."""
    repo = copy_project(trained, tmp_path_factory.mktemp("promotion") / "p")
    with opened(repo) as place:
        spec, dataset = place.project.applied.model(MODEL), place.project.training_set(MODEL)
        for changed in (replace(spec, rounds=51), replace(spec, rounds=1, params={"num_leaves": 2})):
            train(dataset, changed, place.project.store, threads=1, now_us=place.now_us())
    return repo


@pytest.fixture
def spot(three_versions: Path, tmp_path: Path) -> Iterator[Sandbox]:
    with opened(copy_project(three_versions, tmp_path / "p")) as place:
        yield place


def test_a_version_is_planned_shown_and_put_in_place(spot: Sandbox) -> None:
    before = fingerprint(spot.project.packages.root)
    planned = done("promote", MODEL, NEW, "--dry-run", "--repo", spot.repo)
    assert (planned["dry_run"], planned["way"], planned["champion"]) == (True, "at_once", OLD)
    assert fingerprint(spot.project.packages.root) == before
    applied = done("promote", MODEL, NEW, "--repo", spot.repo)
    assert applied == {**planned, "dry_run": False}
    move = spot.project.store.aliases.history(MODEL, "champion")[-1]
    assert (move.expect, move.to, move.reason) == (OLD, NEW, applied["decision"]["reason"])
    kept = last_decision(spot.project.store.decisions, MODEL, NEW)
    assert kept is not None
    assert kept["gain"] == applied["decision"]["gain"]
    again = run("promote", MODEL, NEW, "--repo", spot.repo)
    assert (again.code, again.stdout) == (0, f"{MODEL} {NEW} is already champion\n")


def test_a_worse_version_is_refused_and_the_champion_stays(spot: Sandbox) -> None:
    said = run("promote", MODEL, "--repo", spot.repo, "--json")
    assert (said.code, said.body["version"], said.body["way"]) == (5, WEAK, "nothing")
    assert said.body["error"]["kind"] == "gate"
    assert said.body["decision"]["gain"]["high"] < 0
    assert champion(spot.project) == OLD
    assert last_decision(spot.project.store.decisions, MODEL, WEAK) is not None
    shown = run("promote", MODEL, WEAK, "--repo", spot.repo, "--dry-run")
    assert shown.code == 5
    assert f"{MODEL} {WEAK} is not promoted: auc" in shown.stdout
    assert "all test rows" in shown.stdout


# In make test, test_aliases.py has two that move an alias in each database, and the command below a conflict.
@pytest.mark.soak
def test_of_two_machines_one_wins_and_the_other_is_told(spot: Sandbox, project_database: Database) -> None:
    spec, project = spot.project.applied.model(MODEL), spot.project
    train(project.training_set(MODEL), replace(spec, rounds=52), project.store, threads=1, now_us=spot.now_us())
    copy_tables(project.state.database, project_database)
    hands = [open_project(spot.repo, database_url=address_of(project_database)) for _ in range(2)]
    plans = [plan_promotion(hand, MODEL, version) for hand, version in zip(hands, (NEW, "000004"), strict=True)]
    barrier, told = threading.Barrier(2), []

    def apply(index: int) -> None:
        barrier.wait()
        try:
            apply_promotion(hands[index], plans[index])
        except ConflictError as error:
            told.append((index, error.problem))

    threads = [threading.Thread(target=apply, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((loser, problem),) = told
    winner = plans[1 - loser].version
    assert champion(hands[0]) == winner
    assert problem == f"is held by version {winner!r}, not by {OLD!r}"
    assert [move.to for move in hands[0].store.aliases.history(MODEL, "champion")] == [OLD, winner]
    for hand in hands:
        hand.close()


def test_the_command_tells_a_conflict(spot: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(*arguments: object) -> Promotion:
        planned = plan_promotion(*arguments)  # type: ignore[arg-type]
        spot.project.store.aliases.move(MODEL, "champion", expect=OLD, to=WEAK, reason="another", now_us=1)
        return planned

    monkeypatch.setattr("skewless.operations.models.versions.plan_promotion", meanwhile)
    said = run("promote", MODEL, NEW, "--repo", spot.repo, "--json")
    assert (said.code, said.body["error"]["kind"]) == (9, "conflict")
    assert champion(spot.project) == WEAK


def test_a_model_with_a_rollout_is_not_moved_at_once(spot: Sandbox) -> None:
    declare(spot.repo, "Rollout()")
    done("apply", "--repo", spot.repo)
    assert done("promote", MODEL, NEW, "--dry-run", "--repo", spot.repo)["way"] == "rollout"
    assert spot.project.store.traffic.get(MODEL) is None
    assert done("promote", MODEL, NEW, "--repo", spot.repo)["way"] == "rollout"
    policy = spot.project.store.traffic.get(MODEL)
    assert policy is not None
    assert (policy.champion, policy.challenger, champion(spot.project)) == (OLD, NEW, OLD)
    shown = run("promote", MODEL, NEW, "--repo", spot.repo).stdout
    assert f"rollout of {MODEL} {NEW}: it answers 0.01 of the entities at least until " in shown
    assert f"`skewless rollback {MODEL}` ends it" in shown
    said = run("promote", MODEL, WEAK, "--repo", spot.repo, "--json")
    assert (said.code, champion(spot.project)) == (5, OLD)


def test_a_trained_version_begins_its_rollout(spot: Sandbox) -> None:
    declare(spot.repo, "Rollout()")
    spot.project.apply()
    report = train_model(spot.project, MODEL)
    assert (report.decision.promote, report.decision.by_rollout) == (True, True)
    policy = spot.project.store.traffic.get(MODEL)
    assert policy is not None
    assert (policy.challenger, champion(spot.project)) == (report.trained.package.version, OLD)
    with pytest.raises(ConflictError):
        train_model(spot.project, MODEL)


def test_versions_lists_them_with_why(spot: Sandbox) -> None:
    done("promote", MODEL, NEW, "--repo", spot.repo)
    run("promote", MODEL, WEAK, "--repo", spot.repo)
    (spot.project.packages.root / MODEL / OLD / "metrics.json").write_text("{}")
    report = read_versions(spot.project, MODEL)
    assert json.loads(json.dumps(report.as_dict())) == done("versions", MODEL, "--repo", spot.repo)
    weak, new, old = report.versions
    assert [each.version for each in report.versions] == [WEAK, NEW, OLD]
    assert (weak.aliases, new.aliases, old.problem.startswith("has an altered file")) == ((), ("champion",), True)
    assert weak.decision is not None
    assert weak.decision["promote"] is False
    assert weak.metrics is not None
    assert new.metrics is not None
    assert (weak.metrics["auc"] or 0) < (new.metrics["auc"] or 0)
    assert [(move["to"], move["expect"]) for move in report.moves] == [(NEW, OLD), (OLD, None)]
    shown = run("versions", MODEL, "--repo", spot.repo)
    assert shown.code == 0
    assert "not promoted: auc" in " ".join(shown.stdout.split())
    assert "metrics.json" in shown.stdout


def test_what_there_is_not_cannot_be_promoted(spot: Sandbox) -> None:
    assert run("promote", MODEL, "000009", "--repo", spot.repo, "--json").body["error"]["kind"] == "package"
    assert run("promote", "nosuch", "--repo", spot.repo, "--json").code == 6
    for version in (spot.project.packages.root / MODEL).glob("0*"):
        version.rename(version.with_name(f".{version.name}"))
    with pytest.raises(PackageError, match="has no version"):
        plan_promotion(spot.project, MODEL)
