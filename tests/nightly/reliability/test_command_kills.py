"""A command that is killed before or after any durable step is completed by the same command, run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from skewless import ManualClock, workspace
from skewless.infra.ingest.streams import importing
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from skewless.training import dataset_files
from tests.nightly.reliability.command_kills import COMMANDS, STAGES
from tests.reliability.kills import SIDES, Case, Hits, Victims, ends_of_each_kind, kind_of, table_of, victims
from tests.worlds.addresses import ProjectAddresses, copy_state
from tests.worlds.erasures import ERASED, NOW, delete_in_sources, fill, values, write_repo
from tests.worlds.trained import state_of


@dataclass(frozen=True, kw_only=True)
class StagedRepos:
    """Projects at several stages, of which each case gets a copy."""

    root: Path
    addresses: ProjectAddresses
    dying: Victims
    repos: dict[str, Path] = field(default_factory=dict)
    points: dict[str, list[str]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)  # two tests must not use one name: it is a schema's, too

    def at(self, stage: str) -> Path:
        """Return the project of a stage, which is only copied."""
        if stage not in self.repos:
            before, run = STAGES[stage]
            repo = self.root / stage
            if before is None:
                write_repo(repo, "p", settings=self.addresses.settings(repo))
            else:
                self.copy(self.at(before), repo)
            with Project(repo) as project:
                run(project)
                project.private.stop()
            self.repos[stage] = repo
        return self.repos[stage]

    def copy(self, source: Path, target: Path) -> Path:
        """Copy a project with its online store, which does not run."""
        PrivateServer(source / ".skewless").stop()
        state_of(source).database.close()
        shutil.copytree(source, target)
        settings = self.addresses.settings(target)
        (target / "skewless.yaml").write_text(f"clock: file:{target}/.skewless/clock\nthreads: 1\n{settings}")
        copy_state(state_of(source), state_of(target), with_folder=False)
        database = state_of(target).database
        # This process reads the source, not the copy.
        database.execute("DELETE FROM leases WHERE name LIKE 'log reader %'")
        database.close()
        return target

    def complete(self, command: str, repo: Path) -> Any:  # noqa: ANN401 - of a command
        """Run a command to its end; return what it must have done."""
        with Project(repo) as project:
            (COMMANDS[command].rest or COMMANDS[command].run)(project)
            answer = COMMANDS[command].read(project)
            project.private.stop()
        state_of(repo).database.close()
        return answer

    def points_of(self, command: str) -> list[str]:
        """Return the points of a whole command."""
        if command not in self.points:
            probe = self.copy(self.at(COMMANDS[command].stage), self.root / f"{command}-probe".replace(" ", "-"))
            self.points[command] = self.dying.points(repo=str(probe), command=command)
            PrivateServer(probe / ".skewless").stop()
        return self.points[command]

    def kill(self, command: str, cases: list[Case], expected: Any) -> Hits:  # noqa: ANN401 - of a command
        """Kill the command at points, and complete it."""
        hits, source = Hits(), self.at(COMMANDS[command].stage)
        for point, side in cases:
            repo = self.copy(source, self.root / f"{command}-{next(self.numbers)}".replace(" ", "-"))
            hits[kind_of(point), side] += self.dying.killed(point, side, repo=str(repo), command=command)
            with Project(repo) as project:
                COMMANDS[command].see(project)
            assert self.complete(command, repo) == expected, f"{command}, killed {side} {point}"
            shutil.rmtree(repo)
        return hits


@pytest.fixture(scope="module")
def staged_repos(tmp_path_factory: pytest.TempPathFactory, addresses: ProjectAddresses) -> Iterator[StagedRepos]:
    with pytest.MonkeyPatch.context() as patch, victims("tests.nightly.reliability.command_kills") as dying:
        patch.setattr(workspace, "open_clock", lambda _setting: ManualClock(NOW))
        patch.setattr(importing, "BATCH_ROWS", 150)
        for name, value in (("PART_BYTES", 1), ("SEARCH_BYTES", 1), ("LEAST_ROWS", 150)):
            patch.setattr(dataset_files, name, value)
        yield StagedRepos(root=tmp_path_factory.mktemp("commands"), addresses=addresses, dying=dying)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_the_next_erasure_does_the_rest(staged_repos: StagedRepos) -> None:
    twin = staged_repos.copy(staged_repos.at("written"), staged_repos.root / "twin")
    delete_in_sources(twin)
    with Project(twin) as project:
        fill(project)
        expected = values(project, is_short=True)
        project.private.stop()
    # Without the steps of single files, which `make soak` adds.
    points = [point for point in staged_repos.points_of("erase") if not point.startswith(("sync", "unlink-staging"))]
    cases = [(point, SIDES[number % 2]) for number, point in enumerate(ends_of_each_kind(points))]
    hits = staged_repos.kill("erase", cases, expected)
    assert hits.total() >= len({kind for kind, _ in hits})
    with Project(staged_repos.copy(staged_repos.at("without"), staged_repos.root / "erased")) as project:
        project.erase({"user": ERASED})
        again = project.erase({"user": ERASED})
        assert (again.rows, again.events, again.built) == (0, 0, 0)
        project.private.stop()


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("command", list(COMMANDS))
def test_soak_the_next_command_does_the_rest(
    staged_repos: StagedRepos, command: str, tell: Callable[[str], None]
) -> None:
    """Killed on both sides of the first and the last step of each kind."""
    whole = staged_repos.copy(
        staged_repos.at(COMMANDS[command].stage), staged_repos.root / f"{command}-whole".replace(" ", "-")
    )
    expected = staged_repos.complete(command, whole)
    points = staged_repos.points_of(command)
    hits = staged_repos.kill(
        command, [(point, side) for point in ends_of_each_kind(points) for side in SIDES], expected
    )
    tell(f"{hits.total()} kills, {len(points)} points\n{table_of(hits)}")
    assert hits.total() >= 2 * len({kind for kind, _ in hits})
