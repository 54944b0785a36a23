"""Every comparison runs at a thousandth of its size, its contestants agree, and its rows have the right shape.

Times are not judged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from benchmarks import __main__ as bench
from benchmarks.contestant import ContestantError
from benchmarks.page import WORKS
from benchmarks.repo import ViewTable, write_repo
from benchmarks.result import Result
from benchmarks.server import own_server
from benchmarks.stored import stored_digest
from tests.worlds.command_line import done

FOREIGN = {"serving_peers", "drift", "frames"}  # need peers
KEYS = {"name", "value", "unit", "against", "ratio", "target", "met", "machine"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_SCALE", "0.001")


def tier(work: str) -> list[pytest.MarkDecorator]:
    """Return the mark of a work."""
    return [pytest.mark.bench if work in FOREIGN else pytest.mark.soak]


@pytest.mark.parametrize("work", [pytest.param(work, marks=tier(work)) for work in WORKS])
def test_a_work_runs_and_its_contestants_agree(work: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.nightly.integration.benchmarks.one_process", work, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = json.loads((tmp_path / "results.json").read_text())
    assert rows
    for row in rows:
        assert set(row) == KEYS
        assert row["name"].startswith(f"{work}: ")
        assert row["value"] > 0
        assert row["ratio"] is None or row["ratio"] > 0
        assert row["met"] in ({True, False} if row["target"] else {None})
    assert f"ONLY={work}" in (tmp_path / "RESULTS.md").read_text()


def test_the_digest_of_what_is_stored_sees_one_value_of_one_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = ViewTable(name="wide", n_entities=20, n_features=3)
    table.write(tmp_path)
    repo = write_repo(tmp_path / "repo", [table], tmp_path)
    with own_server() as url, redis.Redis.from_url(url) as client:
        monkeypatch.setenv("SKEWLESS_REDIS_URL", url)
        done("apply", "--repo", repo)
        done("materialize", "--repo", repo)
        before = stored_digest(repo, url, table.n_entities)
        assert stored_digest(repo, url, table.n_entities) == before
        key = next(key for key in client.scan_iter() if b"}" in key)
        row = client.get(key)
        client.set(key, row[:-1] + bytes([row[-1] ^ 1]))
        assert stored_digest(repo, url, table.n_entities) != before


@pytest.mark.soak
def test_a_work_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> list[Result]:
        raise ContestantError("planted")

    for work in WORKS:
        row = Result(name=f"{work}: a", value=1.0, unit="s", against="-", ratio=None)
        monkeypatch.setattr(f"benchmarks.{work}.run", lambda row=row: [row])
    for work in ("growth", "serving_growth"):
        monkeypatch.setattr(f"benchmarks.{work}.plot", lambda _: "")
    monkeypatch.setattr("benchmarks.join.run", broken)
    with pytest.raises(SystemExit, match="failed: join"):
        bench.main(["--out", str(tmp_path)])
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["name"] for row in rows] == [f"{work}: a" for work in WORKS if work != "join"]


def test_a_trial_is_not_written_beside_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr("benchmarks.growth.run", list)
    bench.main(["growth"])
    assert list(tmp_path.iterdir()) == []
