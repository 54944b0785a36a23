"""Decisions are only ever added, by however many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.contract.errors import PackageError
from skewless.infra.packages.decisions import Decisions
from skewless.infra.storage.names import list_versions


def test_none_before_the_first(tmp_path: Path) -> None:
    assert list(Decisions(tmp_path).read_latest_first("m")) == []
    assert Decisions(tmp_path).last("m", "000001") is None


def test_the_last_one_about_a_version_counts(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path)
    for at_us, (version, promote) in enumerate([("000001", True), ("000002", False), ("000002", True)]):
        decisions.add("m", version, {"promote": promote}, at_us)
    assert decisions.last("m", "000002") == {"version": "000002", "at_us": 2, "promote": True}
    assert decisions.last("m", "000001") == {"version": "000001", "at_us": 0, "promote": True}
    assert [each["at_us"] for each in decisions.read_latest_first("m")] == [2, 1, 0]
    assert list_versions(tmp_path, "m") == []


def test_many_at_once_lose_none(tmp_path: Path) -> None:
    def add(at_us: int) -> None:
        Decisions(tmp_path).add("m", "000001", {"promote": False}, at_us)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(each["at_us"] for each in Decisions(tmp_path).read_latest_first("m")) == list(range(40))


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    Decisions(tmp_path).add("m", "000001", {"promote": False}, 1)
    (tmp_path / "m/decisions/000001.json").write_text("{")
    with pytest.raises(PackageError, match=r"decision 'decisions/000001\.json': is corrupt"):
        Decisions(tmp_path).last("m", "000001")
