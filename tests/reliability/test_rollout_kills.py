"""A step of a rollout that is killed before or after any durable write is finished, or was never begun."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from skewless.contract.traffic import TrafficPolicy
from skewless.infra.alerts.alerts import open_alerts
from skewless.infra.packages.aliases import Aliases
from skewless.infra.rollout.traffic import Traffic
from skewless.operations import rollout
from tests.reliability.kills import Side
from tests.reliability.rollout_kills import Victims, do, victims
from tests.unit.training.rollout.arms import arm
from tests.worlds.rollouts import NEW, champion, count, keep, make_rollout, set_back, standing
from tests.worlds.trained import MODEL, Place, make_project, opened

SIDES: tuple[Side, ...] = ("before", "after")
TEN_MINUTES = 600
Case = tuple[str, str, Side]
State = tuple[str, str, str | None, float, str | None]


def _grow(place: Place) -> None:
    """Bring a rollout to the end of its step."""
    count(place.project, champion=arm(), challenger=arm(seed=1))
    place.wait(TEN_MINUTES)


def _forward(place: Place) -> None:
    do(place.project, "begin")
    _grow(place)


def _won(place: Place) -> None:
    _forward(place)
    do(place.project, "step")
    _grow(place)


def _back(place: Place) -> None:
    do(place.project, "begin")
    count(place.project, champion=arm(), challenger=arm(failed=500, seed=1))


def _returned(place: Place) -> None:
    _won(place)
    do(place.project, "step")


def _by_hand(place: Place) -> None:
    do(place.project, "begin")
    Aliases(place.project.packages).move(MODEL, "champion", expect="000001", to=NEW, reason="by hand", now_us=1)


# name -> what is done, and what comes before it
DEEDS: Mapping[str, tuple[str, Callable[[Place], None]]] = {
    "begin": ("begin", lambda _: None),
    "forward": ("step", _forward),
    "won": ("step", _won),
    "back": ("step", _back),
    "follow": ("step", _by_hand),
    "end by hand": ("rollback", lambda place: do(place.project, "begin")),
    "return by hand": ("rollback", _returned),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is killed: the place, its victims, and per deed the state before it and after it."""

    place: Place
    victims: Victims
    kept: Path
    before: dict[str, State]
    after: dict[str, State]
    points: dict[str, list[str]]

    def prepare(self, deed: str) -> None:
        set_back(self.place.state, self.kept / deed)


def state(place: Place) -> State:
    """What the traffic of the model is: not how often it was written."""
    policy = Traffic(place.project.packages).get(MODEL) or TrafficPolicy(number=0, phase="champion", champion="000001")
    holder = champion(place.project)
    return policy.phase, policy.champion, policy.challenger, policy.share, holder


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("kills")
    make_project(folder / "trained")
    with opened(make_rollout(folder / "trained", folder / "p")) as place, victims() as found:
        scene = Scene(place=place, victims=found, kept=folder / "kept", before={}, after={}, points={})
        keep(place.state, scene.kept / "new")
        for name, (deed, before) in DEEDS.items():
            set_back(place.state, scene.kept / "new")
            before(place)
            keep(place.state, scene.kept / name)
            scene.before[name] = state(place)
            scene.points[name] = scene.victims.points(place.repo, deed)
            scene.after[name] = state(place)
        yield scene


def kill_at(scene: Scene, cases: Sequence[Case]) -> Counter[Case]:
    """Kill each deed at a point, see that nothing is half done to a reader, and let the next step finish."""
    hit: Counter[Case] = Counter()
    project = scene.place.project
    for name, point, side in cases:
        scene.prepare(name)
        if scene.victims.killed(scene.place.repo, DEEDS[name][0], point, side):
            hit[name, point.partition("#")[0], side] += 1
        where = f"{name}, killed {side} {point}"
        seen = state(scene.place)
        allowed = {scene.before[name], scene.after[name], (*scene.after[name][:4], scene.before[name][4])}
        assert seen in allowed, where
        if DEEDS[name][0] == "step" or rollout.wants_step(project, MODEL):
            rollout.step(project, MODEL)
        assert state(scene.place) in {scene.before[name], scene.after[name]}, where
        if seen[:4] != scene.before[name][:4] or DEEDS[name][0] == "step":
            assert state(scene.place) == scene.after[name], where
        _check_books(scene.place, where)
        if name == "back":
            assert [alert.name for alert in open_alerts(scene.place.state)] == ["rollout"], where
    return hit


def _check_books(place: Place, where: str) -> None:
    """Numbers have no gap, the alias and the policy agree, and each policy and move is there once."""
    policies = Traffic(place.project.packages).history(MODEL)
    moves = Aliases(place.project.packages).history(MODEL, "champion")
    assert [policy.number for policy in policies] == list(range(1, len(policies) + 1)), where
    assert [move.number for move in moves] == list(range(1, len(moves) + 1)), where
    assert [move.expect for move in moves] == [None, *(move.to for move in moves[:-1])], where
    assert not policies or standing(place.project).champion == moves[-1].to, where
    assert len({(policy.phase, policy.step, policy.champion, policy.reason) for policy in policies}) == len(policies)


def test_every_deed_moves_on_and_comes_by_what_it_writes(scene: Scene) -> None:
    assert {name: scene.before[name] != scene.after[name] for name in DEEDS} == dict.fromkeys(DEEDS, True)
    assert {name for name, points in scene.points.items() if "link-traffic#1" in points} == set(DEEDS)
    assert {name for name, points in scene.points.items() if "link-champion#1" in points} == {"won", "return by hand"}
    assert "replace-alerts#1" in scene.points["back"]


def test_kills_around_the_policy_the_alias_and_the_alert(scene: Scene) -> None:
    cases: list[Case] = [
        ("won", "link-traffic#1", "before"),
        ("won", "link-traffic#1", "after"),
        ("won", "link-champion#1", "before"),
        ("back", "replace-alerts#1", "after"),
        ("return by hand", "link-traffic#1", "after"),
    ]
    assert sum(kill_at(scene, cases).values()) == len(cases)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(2))
def test_soak_every_durable_step_is_killed_before_and_after(
    scene: Scene, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cases: list[Case] = [(name, point, side) for name in DEEDS for point in scene.points[name] for side in SIDES] * 3
    random.Random(seed).shuffle(cases)
    hit = kill_at(scene, cases)
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {sum(hit.values())} kills in {len(cases)} deeds\n")
        sys.stdout.writelines(
            f"  {name:15} {point:24} {side:7} {n:3}\n" for (name, point, side), n in sorted(hit.items())
        )
    assert sum(hit.values()) == len(cases) >= 100
    assert min(hit.values()) >= 3
