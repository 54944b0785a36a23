"""Decisions are only ever added, by however many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from skewless.infra.models.packages.store import Decisions
from skewless.infra.platform.storage.database import Database
from tests.worlds.decisions import last_decision


def test_none_before_the_first(project_database: Database) -> None:
    assert list(Decisions(project_database).read_latest_first("m")) == []
    assert last_decision(Decisions(project_database), "m", "000001") is None


def test_the_last_one_about_a_version_counts(project_database: Database) -> None:
    decisions = Decisions(project_database)
    for at_us, (version, promote) in enumerate([("000001", True), ("000002", False), ("000002", True)]):
        decisions.add("m", version, {"promote": promote}, at_us)
    assert last_decision(decisions, "m", "000002") == {"version": "000002", "at_us": 2, "promote": True}
    assert last_decision(decisions, "m", "000001") == {"version": "000001", "at_us": 0, "promote": True}
    assert [each["at_us"] for each in decisions.read_latest_first("m")] == [2, 1, 0]


def test_many_at_once_lose_none(project_database: Database) -> None:
    def add(at_us: int) -> None:
        Decisions(project_database).add("m", "000001", {"promote": False}, at_us)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(each["at_us"] for each in Decisions(project_database).read_latest_first("m")) == list(range(40))
