"""A project is the same from every folder: what its files name is relative to it, and nothing is left elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from skewless.contract.clock import OffsetClock
from skewless.infra.online.private_server import PrivateServer
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


def run(repo: Path, elsewhere: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in a process of its own, in another folder, whose project is named relative to it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKEWLESS_", "PYTHONPATH"))}
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "skewless.cli", *words, "--repo", os.path.relpath(repo, elsewhere), "--json"],
        cwd=elsewhere,
        env=kept | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def all_done(repo: Path, elsewhere: Path, verbs: Sequence[Sequence[str]]) -> list[dict[str, object]]:
    found = []
    for words in verbs:
        said = run(repo, elsewhere, *words)
        assert said.returncode == 0, _failed(said)
        found.append(json.loads(said.stdout))
    return found


def _failed(said: subprocess.CompletedProcess[str]) -> str:
    told = json.loads(said.stdout) if said.stdout.startswith("{") else {}
    checks = [check for check in told.get("checks", []) if check["verdict"] == "fail"]
    return f"{said.args}: {said.returncode}: {checks or said.stdout}{said.stderr}"


def test_every_file_is_found_from_another_folder(repo: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    OffsetClock.create(repo / "moved/clock.bin").set(NOW)
    verbs = [["apply"], ["import"], ["materialize", "--no-check"], ["backfill"], ["train"], ["status"], ["doctor"]]
    *_, trained, status, _ = all_done(repo, elsewhere, verbs)
    assert trained["models"][0]["promoted"]  # type: ignore[index]
    assert "tracking" not in trained
    assert status["windows"][0]["log_rows"] == 600  # type: ignore[index]
    assert (repo / "here/state/packages/late/000001").is_dir()
    assert list(elsewhere.iterdir()) == []
    # A job of the scheduler is a process of its own.
    (done,) = all_done(repo, elsewhere, [["scheduler", "--only", "materialize", "--only", "validate"]])
    assert {job["state"] for job in done["jobs"]} == {"done"}  # type: ignore[attr-defined]
    assert list(elsewhere.iterdir()) == []
    now = OffsetClock(repo / "moved/clock.bin").now_us()
    assert NOW <= now < NOW + 10 * MINUTE


def test_a_clock_that_is_missing_is_named_and_not_made(repo: Path, tmp_path: Path) -> None:
    OffsetClock.create(repo / "moved/clock.bin").set(NOW)
    all_done(repo, tmp_path, [["apply"]])
    (repo / "moved/clock.bin").unlink()
    for verb in ("materialize", "train", "serve", "scheduler", "stream"):
        said = run(repo, tmp_path, verb)
        assert said.returncode == 10, said
        assert f"clock file {repo}/moved/clock.bin: is missing" in said.stdout + said.stderr
        assert "relative to the project" in said.stdout + said.stderr
        assert not (repo / "moved/clock.bin").exists()
        assert not (tmp_path / "moved").exists()
