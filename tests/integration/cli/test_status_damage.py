"""A log file that is missing or altered hides nothing else of a status."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.command_line import done, run


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.fixture
def repo(walked: Path, tmp_path: Path) -> Path:
    """A project with rows in its logs, without its online store."""
    return Path(shutil.copytree(walked, tmp_path / "p", ignore=shutil.ignore_patterns("redis")))


def without(body: dict[str, Any], *, view: str) -> dict[str, Any]:
    """Return a status without what one view's files say."""
    views = [{**item, "rejected": 0, "problem": None} if item["view"] == view else item for item in body["views"]]
    return {**body, "views": views}


@pytest.mark.parametrize("damage", [remove, cut])
def test_a_damaged_file_of_a_view_hides_nothing_else(repo: Path, damage: Callable[[Path], None]) -> None:
    before = done("status", "--repo", repo)
    (path,) = (repo / ".skewless/log/batch").glob("card_days-*/*.parquet")
    damage(path)
    answer = run("status", "--repo", repo, "--json")
    body = answer.body
    assert answer.code == 7
    (view,) = (item for item in body["views"] if item["view"] == "card_days")
    assert view["rejected"] is None
    assert path.name in view["problem"]
    assert without(body, view="card_days") == without(before, view="card_days")
    shown = run("status", "--repo", repo)
    assert shown.code == 7
    assert path.name in "".join(shown.stdout.split())  # a long line is wrapped
    assert "shop_risk" in shown.stdout
    assert "fraud" in shown.stdout


def test_a_damaged_file_of_the_spool_hides_nothing(repo: Path) -> None:
    before = done("status", "--repo", repo)
    folder = repo / ".skewless/spool/predictions"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{1:020d}-{'a' * 12}-000000.parquet").write_bytes(b"PAR1")
    assert done("status", "--repo", repo) == before
