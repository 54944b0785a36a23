"""Removal by the moment in a name, and by the disk's time; nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

from skewless.infra.log.retention import remove_named_before, remove_written_before


def test_files_named_by_an_earlier_moment_go(tmp_path: Path) -> None:
    for us in (5, 9, 10):
        (tmp_path / f"{us:020d}-w-000001.parquet").touch()
    (tmp_path / "other.parquet").touch()
    (tmp_path / f"{1:020d}.tmp").touch()
    assert remove_named_before(tmp_path, 10) == 2
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"{1:020d}.tmp", f"{10:020d}-w-000001.parquet", "other.parquet"]
    assert remove_named_before(tmp_path / "none", 10) == 0


def test_files_written_before_a_moment_go(tmp_path: Path) -> None:
    (tmp_path / "view").mkdir()
    for us in (5, 10):
        path = tmp_path / "view" / f"{us}.parquet"
        path.touch()
        os.utime(path, ns=(us * 1_000, us * 1_000))
    assert remove_written_before(tmp_path, 10) == 1
    assert [path.name for path in (tmp_path / "view").iterdir()] == ["10.parquet"]
