"""A project is the same from every folder: what its files name is relative to it, and nothing is left elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.clock import OffsetClock
from skewless.infra.reads.online.private_server import PrivateServer
from tests.worlds.command_line import done, run
from tests.worlds.windowed import MINUTE, NOW, write_repo

SETTINGS = (
    "clock: file:moved/clock.bin\nstate: here/state\ntracking_uri: sqlite:///here/mlflow.db\nthreads: 1\nport: 0\n"
)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    repo = write_repo(tmp_path / "p")
    (repo / "skewless.yaml").write_text(SETTINGS)
    yield repo
    PrivateServer(repo / "here/state").stop()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: another folder than that of the project, which no variable sets up."""
    for name in [name for name in os.environ if name.startswith("SKEWLESS_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "elsewhere" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def all_done(repo: Path, elsewhere: Path, verbs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Run commands from another folder, each of which must succeed; return their JSON."""
    return [done(*words, "--repo", os.path.relpath(repo, elsewhere)) for words in verbs]


def test_every_file_is_found_from_another_folder(repo: Path, elsewhere: Path) -> None:
    OffsetClock.create(repo / "moved/clock.bin").set(NOW)
    verbs = [["apply"], ["import"], ["materialize", "--no-check"], ["backfill"], ["train"], ["status"], ["doctor"]]
    *_, trained, status, _ = all_done(repo, elsewhere, verbs)
    assert trained["models"][0]["promoted"]
    assert "tracking" not in trained
    assert status["windows"][0]["log_rows"] == 600
    assert (repo / "here/state/packages/late/000001").is_dir()
    assert list(elsewhere.iterdir()) == []
    # A job of the scheduler is a process of its own.
    (ended,) = all_done(repo, elsewhere, [["scheduler", "--only", "materialize", "--only", "validate"]])
    assert {job["state"] for job in ended["jobs"]} == {"done"}
    assert list(elsewhere.iterdir()) == []
    now = OffsetClock(repo / "moved/clock.bin").now_us()
    assert NOW <= now < NOW + 10 * MINUTE


def test_a_clock_that_is_missing_is_named_and_not_made(repo: Path, elsewhere: Path) -> None:
    OffsetClock.create(repo / "moved/clock.bin").set(NOW)
    all_done(repo, elsewhere, [["apply"]])
    (repo / "moved/clock.bin").unlink()
    for verb in ("materialize", "train", "serve", "scheduler", "stream"):
        said = run(verb, "--repo", os.path.relpath(repo, elsewhere), "--json")
        assert said.code == 10, said
        assert f"clock file {repo}/moved/clock.bin: is missing" in said.stdout + said.stderr
        assert "relative to the project" in said.stdout + said.stderr
        assert not (repo / "moved/clock.bin").exists()
        assert list(elsewhere.iterdir()) == []
