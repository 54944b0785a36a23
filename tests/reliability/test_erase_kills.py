"""An erasure that is killed before or after any durable step is completed by the next one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skewless import ManualClock, workspace
from skewless.infra.online.private_server import PrivateServer
from skewless.project import Project
from tests.reliability.erase_kills import erase_points, killed_erasure
from tests.reliability.kills import Side
from tests.worlds.erasures import ERASED, NOW, delete_in_sources, fill, values, write_repo


@pytest.mark.timeout(900)
def test_the_next_erasure_does_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "open_clock", lambda _setting: ManualClock(NOW))
    repo, twin = write_repo(tmp_path / "p", "p"), write_repo(tmp_path / "twin", "p")
    delete_in_sources(twin)
    with Project(twin) as project:
        fill(project)
        expected = values(project, is_short=True)
        project.private.stop()
    with Project(repo) as project:
        fill(project)
        project.private.stop()
    delete_in_sources(repo)
    points = erase_points(_copy(repo, tmp_path / "probe"))
    # The first and the last of each kind of step.
    kinds = {point.partition("#")[0] for point in points}
    chosen = [point for point in points if point.endswith("#1")] + [
        [point for point in points if point.startswith(f"{kind}#")][-1] for kind in sorted(kinds)
    ]
    hit = 0
    for number, point in enumerate(dict.fromkeys(chosen)):
        side: Side = "before" if number % 2 else "after"
        copy = _copy(repo, tmp_path / f"k{number}")
        hit += killed_erasure(copy, point, side)
        with Project(copy) as project:
            project.erase({"user": ERASED})
            assert values(project, is_short=True) == expected, (point, side)
            assert project.parity(sample=100).ok, (point, side)
            again = project.erase({"user": ERASED})
            assert (again.rows, again.events, again.built) == (0, 0, 0)
            project.private.stop()
    assert hit >= len(kinds)


def _copy(repo: Path, target: Path) -> Path:
    """Copy a project with its online store, which does not run."""
    PrivateServer(repo / ".skewless").stop()
    return Path(shutil.copytree(repo, target))
