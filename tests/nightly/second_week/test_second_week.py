"""The second week: definitions, data and models change again and again while the project serves, and stays exact."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.nightly.second_week import declared, oracle
from tests.nightly.second_week.changes import KINDS, Changes, kinds
from tests.nightly.second_week.living import LivingProject

# A sequence within the first changes, and a rollback after views have changed and a version was promoted.
SEED = 134_463


def test_the_oracle_shares_no_code_with_the_product() -> None:
    for module in (oracle, declared):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert "skewless" not in {name.split(".")[0] for name in names}
        assert {name for name in names if name.startswith("tests")} <= {"tests.nightly.second_week.declared"}


@pytest.mark.timeout(900)
def test_a_second_week(tmp_path: Path) -> None:
    Week(repo=tmp_path / "week", seed=SEED, changes=5, restart_every=3, pause_s=0.5).live()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_longer_week(tmp_path: Path) -> None:
    Week(repo=tmp_path / "week", seed=SEED, changes=20, restart_every=5).live()


@pytest.mark.soak
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_changes(tmp_path: Path, seed: int) -> None:
    Week(repo=tmp_path / "week", seed=seed, changes=200, restart_every=0, prove_every=20, workers=2).live()


@pytest.mark.soak
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("seed", [4, 5, 6])
def test_many_changes_with_a_restart_after_each(tmp_path: Path, seed: int) -> None:
    Week(repo=tmp_path / "week", seed=seed, changes=200, restart_every=1, prove_every=20).live()


@dataclass(kw_only=True)
class Week:
    """A life with changes.

    Args:
        restart_every: after how many changes the server is started again; 0: never.
        prove_every: after how many changes parity and replay look; they do at the end in any case.
        workers: processes of the server.
        pause_s: between two predictions of the load.
        allowed: kinds of changes.
    """

    repo: Path
    seed: int
    changes: int
    restart_every: int
    prove_every: int = 0
    workers: int = 1
    pause_s: float = 0.15
    allowed: tuple[str, ...] = KINDS
    done: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)

    def live(self) -> None:
        """Live through all changes; what differs from the oracle is told with its seed, change and bits."""
        self.repo.mkdir()
        world = LivingProject(self.repo, self.seed, workers=self.workers, pause_s=self.pause_s)
        with world.living():
            place, doer, chosen = f"seed {self.seed}, before any change", Changes(world), self._kinds()
            try:
                expect(world)
                for number, kind in chosen:
                    place, before = f"seed {self.seed}, change {number} ({kind})", world.judge.counts["compared"]
                    place = f"{place}: {doer.do(kind)}"
                    self._go_on(world, number)
                    self._note(place, kind, world.judge.counts["compared"] - before)
                place = f"seed {self.seed}, at the end"
                end(world)
            except AssertionError as error:
                raise AssertionError(f"{place}: {error}") from error
        self._print(world.judge.counts)

    def _kinds(self) -> Iterator[tuple[int, str]]:
        return zip(range(1, self.changes + 1), kinds(self.seed, self.allowed), strict=False)

    def _go_on(self, world: LivingProject, number: int) -> None:
        """Let some minutes pass with events, and perhaps a server that is started again; then all must be right."""
        for source in world.sources:
            world.send(world.happenings.recent(source, 3, world.now), world.chance.choice(["events", "push"]))
        world.advance(world.chance.randrange(2, 8))
        if self.restart_every and number % self.restart_every == 0:
            world.restart_server()
        world.settle()
        expect(world)
        if self.prove_every and number % self.prove_every == 0:
            prove(world, "--new")

    def _note(self, place: str, kind: str, values: int) -> None:
        self.done[kind] += 1
        self.values[kind] += values
        print(f"{place}: {values:,} values compared")  # noqa: T201 - read where a soak runs, or a test failed

    def _print(self, counts: Counter[str]) -> None:
        lines = [f"{kind:28} {self.done[kind]:>8,} {self.values[kind]:>12,}" for kind in sorted(self.done)]
        said = ", ".join(f"{name} {n:,}" for name, n in counts.items())
        print(f"seed {self.seed}", f"{'change':28} {'times':>8} {'values':>12}", *lines, said, sep="\n")  # noqa: T201


def expect(world: LivingProject) -> None:
    """Every value is right, of those who asked all the time and of everyone now; no program has ended."""
    wrong = world.judge_load() + world.judge_everyone()
    assert not wrong, f"{len(wrong)} differences, first: {wrong[0]}"
    world.check_programs()


def prove(world: LivingProject, *words: str) -> None:
    """Replay explains every prediction, parity finds nothing."""
    for verb in (("parity",), ("replay", *words)):
        report = world.done(*verb)
        assert report["ok"], (verb, report)


def end(world: LivingProject) -> None:
    """Stop the server, so that its log is whole, and prove everything."""
    world.load.stop()
    world.server.stop()
    wrong = world.judge_load()
    assert not wrong, f"{len(wrong)} differences, first: {wrong[0]}"
    prove(world)
    counts = world.judge.counts
    assert counts["compared"] > counts.total() / 2, f"most values were not compared: {dict(counts)}"
