"""A step of a rollout that is killed before or after any durable write is finished, or was never begun."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import ConflictError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.platform.alerts.alerts import open_alerts
from skewless.operations.models import rollout
from tests.nightly.reliability.rollout_kills import do
from tests.reliability.kills import SIDES, Side, Victims, kind_of, table_of, victims
from tests.unit.training.rollout.arms import arm
from tests.worlds.addresses import ProjectAddresses, read_tables, replace_tables
from tests.worlds.rollouts import NEW, champion, count, standing
from tests.worlds.trained import MODEL, Sandbox, copy_project, move_project, opened

TEN_MINUTES = 600
Case = tuple[str, str, Side]
State = tuple[str, str, str | None, float, str | None]


def _grow(place: Sandbox) -> None:
    """Bring a rollout to the end of its step."""
    count(place.project, champion=arm(), challenger=arm(seed=1))
    place.wait(TEN_MINUTES)


def _forward(place: Sandbox) -> None:
    do(place.project, "begin")
    _grow(place)


def _won(place: Sandbox) -> None:
    _forward(place)
    do(place.project, "step")
    _grow(place)


def _back(place: Sandbox) -> None:
    do(place.project, "begin")
    count(place.project, champion=arm(), challenger=arm(failed=500, seed=1))


def _returned(place: Sandbox) -> None:
    _won(place)
    do(place.project, "step")


def _by_hand(place: Sandbox) -> None:
    do(place.project, "begin")
    place.project.store.aliases.move(MODEL, "champion", expect="000001", to=NEW, reason="by hand", now_us=1)


def _begun_after_a_promotion(place: Sandbox) -> None:
    """Begin the rollout of the first version again, so that the champion has one before it."""
    _returned(place)
    rollout.begin_rollout(place.project, MODEL, "000001")


# name -> the action, and its preparation
DEEDS: Mapping[str, tuple[str, Callable[[Sandbox], None]]] = {
    "begin": ("begin", lambda _: None),
    "forward": ("step", _forward),
    "won": ("step", _won),
    "back": ("step", _back),
    "follow": ("step", _by_hand),
    "end by hand": ("rollback", _begun_after_a_promotion),
    "return by hand": ("rollback", _returned),
}


@dataclass(frozen=True, kw_only=True)
class KillScene:
    """The place of the kills, their victims, and per action the state before it and after it."""

    place: Sandbox
    victims: Victims
    kept: dict[str, dict[str, list[Any]]]
    before: dict[str, State]
    after: dict[str, State]
    points: dict[str, list[str]]

    def prepare(self, deed: str) -> None:
        replace_tables(self.place.project.state, self.kept[deed])

    def keep(self, deed: str) -> None:
        self.kept[deed] = read_tables(self.place.project.state)


def state(place: Sandbox) -> State:
    """The traffic of the model, without the number of writes."""
    policy = place.project.store.traffic.get(MODEL) or TrafficPolicy(number=0, phase="champion", champion="000001")
    holder = champion(place.project)
    return policy.phase, policy.champion, policy.challenger, policy.share, holder


@pytest.fixture(scope="module")
def kill_scene(
    two_versions: Path, tmp_path_factory: pytest.TempPathFactory, addresses: ProjectAddresses
) -> Iterator[KillScene]:
    repo = move_project(copy_project(two_versions, tmp_path_factory.mktemp("kills") / "p"), addresses)
    with opened(repo) as place, victims("tests.nightly.reliability.rollout_kills") as dying:
        kill_scene = KillScene(place=place, victims=dying, kept={}, before={}, after={}, points={})
        kill_scene.keep("new")
        for name, (deed, before) in DEEDS.items():
            kill_scene.prepare("new")
            before(place)
            kill_scene.keep(name)
            kill_scene.before[name] = state(place)
            # The first run fills the online store, which is not emptied again: its steps come only once.
            for _ in range(2):
                kill_scene.prepare(name)
                kill_scene.points[name] = dying.points(repo=str(repo), deed=deed)
            kill_scene.after[name] = state(place)
        yield kill_scene


def kill_at(kill_scene: KillScene, cases: Sequence[Case]) -> Counter[Case]:
    """Kill each deed at a point, see that nothing is half done to a reader, and let the next step finish."""
    hit: Counter[Case] = Counter()
    project = kill_scene.place.project
    for name, point, side in cases:
        kill_scene.prepare(name)
        repo, deed = str(kill_scene.place.repo), DEEDS[name][0]
        hit[name, kind_of(point), side] += kill_scene.victims.killed(point, side, repo=repo, deed=deed)
        where = f"{name}, killed {side} {point}"
        seen = state(kill_scene.place)
        allowed = {
            kill_scene.before[name],
            kill_scene.after[name],
            (*kill_scene.after[name][:4], kill_scene.before[name][4]),
        }
        assert seen in allowed, where
        if DEEDS[name][0] == "step" or rollout.needs_step(project, MODEL):
            rollout.step_rollout(project, MODEL)
        assert state(kill_scene.place) in {kill_scene.before[name], kill_scene.after[name]}, where
        if seen[:4] != kill_scene.before[name][:4] or DEEDS[name][0] == "step":
            assert state(kill_scene.place) == kill_scene.after[name], where
        _check_books(kill_scene.place, where)
        if name == "back":
            assert [alert.name for alert in open_alerts(project.state)] == ["rollout"], where
    return hit


def _check_books(place: Sandbox, where: str) -> None:
    """Numbers have no gap, the alias and the policy agree, and each policy and move is there once."""
    policies = place.project.store.traffic.history(MODEL)
    moves = place.project.store.aliases.history(MODEL, "champion")
    assert [policy.number for policy in policies] == list(range(1, len(policies) + 1)), where
    assert [move.number for move in moves] == list(range(1, len(moves) + 1)), where
    assert [move.expect for move in moves] == [None, *(move.to for move in moves[:-1])], where
    assert not policies or standing(place.project).champion == moves[-1].to, where
    assert len({(policy.phase, policy.step, policy.champion, policy.reason) for policy in policies}) == len(policies)


def test_every_deed_moves_on_and_comes_by_what_it_writes(kill_scene: KillScene) -> None:
    assert {name: kill_scene.before[name] != kill_scene.after[name] for name in DEEDS} == dict.fromkeys(DEEDS, True)
    assert {name for name, points in kill_scene.points.items() if "commit-traffic_policy#1" in points} == set(DEEDS)
    assert {name for name, points in kill_scene.points.items() if "commit-alias_move#1" in points} == {
        "won",
        "return by hand",
    }
    assert "store-alert#1" in kill_scene.points["back"]


def test_kills_around_the_policy_the_alias_and_the_alert(kill_scene: KillScene) -> None:
    cases: list[Case] = [
        ("won", "commit-traffic_policy#1", "before"),
        ("won", "commit-traffic_policy#1", "after"),
        ("won", "commit-alias_move#1", "before"),
        ("back", "store-alert#1", "after"),
        ("return by hand", "commit-traffic_policy#1", "after"),
    ]
    assert sum(kill_at(kill_scene, cases).values()) == len(cases)


@pytest.mark.parametrize("side", SIDES)
def test_a_rollback_by_hand_that_is_killed_is_repeated_and_goes_back_once(kill_scene: KillScene, side: Side) -> None:
    kill_scene.prepare("return by hand")
    repo = str(kill_scene.place.repo)
    assert kill_scene.victims.killed("commit-alias_move#1", side, repo=repo, deed="rollback")
    if side == "before":  # the alias is the old one, so that a person does it again
        do(kill_scene.place.project, "rollback")
    assert state(kill_scene.place) == kill_scene.after["return by hand"]
    _check_books(kill_scene.place, side)


@pytest.mark.parametrize("side", SIDES)
def test_a_rollback_that_ends_a_rollout_is_killed_and_repeated_and_ends_it_alone(
    kill_scene: KillScene, side: Side
) -> None:
    kill_scene.prepare("end by hand")
    repo, project = str(kill_scene.place.repo), kill_scene.place.project
    assert kill_scene.victims.killed("commit-traffic_policy#1", side, repo=repo, deed="rollback")
    if side == "before":
        do(project, "rollback")
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match=r"has ended the rollout, for this reason .got 'by hand'"):
            rollout.rollback(project, MODEL, reason="by hand", dry_run=dry_run)
    assert state(kill_scene.place) == kill_scene.after["end by hand"]
    assert rollout.rollback(project, MODEL, reason="the champion is bad, too").change == "back"
    assert champion(project) == "000001"
    _check_books(kill_scene.place, side)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(2))
def test_soak_every_durable_step_is_killed_before_and_after(
    kill_scene: KillScene, seed: int, tell: Callable[[str], None]
) -> None:
    cases: list[Case] = [
        (name, point, side) for name in DEEDS for point in kill_scene.points[name] for side in SIDES
    ] * 4
    random.Random(seed).shuffle(cases)
    hit = kill_at(kill_scene, cases)
    rows = Counter[tuple[str, Side]]()
    for (name, kind, side), n in hit.items():
        rows[f"{name}: {kind}", side] += n
    tell(f"seed {seed}: {hit.total()} kills in {len(cases)} deeds\n{table_of(rows)}")
    assert sum(hit.values()) == len(cases) >= 100
    assert min(hit.values()) >= 3
