"""Policies are replaced by compare-and-set and keep their history."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, PackageError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.store import Traffic
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.package_folder import PackageFolder


@pytest.fixture
def traffic(tmp_path: Path, project_database: Database) -> Traffic:
    for version in ("000001", "000002"):
        (tmp_path / "late" / version).mkdir(parents=True)
    return Traffic(PackageFolder(tmp_path), project_database)


def policy(share: float = 0.1) -> TrafficPolicy:
    return TrafficPolicy(
        number=99,
        phase="canary",
        champion="000001",
        challenger="000002",
        share=share,
        sticky=("user_id",),
        salt="r1",
        since_us=7,
        evidence={"auc": [0.1, None]},
    )


def test_a_model_without_a_policy(traffic: Traffic) -> None:
    assert traffic.get("late") is None
    assert traffic.number("late") is None
    assert traffic.history("late") == []
    assert traffic.get("unknown") is None


def test_policies_are_numbered_and_kept(traffic: Traffic) -> None:
    first = traffic.replace("late", policy(0.1), expect=None)
    second = traffic.replace("late", policy(0.5), expect=1)
    assert (first.number, second.number) == (1, 2)
    assert traffic.get("late") == second
    assert traffic.history("late") == [first, second]
    assert second.evidence == {"auc": [0.1, None]}


@pytest.mark.parametrize("expect", [None, 2])
def test_another_policy_than_expected_is_a_conflict(traffic: Traffic, expect: int | None) -> None:
    traffic.replace("late", policy(), expect=None)
    with pytest.raises(ConflictError, match="is under policy 1, not"):
        traffic.replace("late", policy(0.9), expect=expect)
    assert [one.share for one in traffic.history("late")] == [0.1]


def test_of_many_that_replace_one_policy_one_wins(traffic: Traffic) -> None:
    ready = threading.Barrier(6)
    for turn in range(5):

        def replace(share: float, expect: int | None = turn or None) -> float | None:
            ready.wait()
            try:
                return traffic.replace("late", policy(share), expect=expect).share
            except ConflictError:
                return None

        with ThreadPoolExecutor(6) as pool:
            winners = [share for share in pool.map(replace, [i / 10 for i in range(6)]) if share is not None]
        assert winners == [traffic.history("late")[-1].share]
    assert [each.number for each in traffic.history("late")] == [1, 2, 3, 4, 5]


def test_a_version_that_does_not_exist_gets_no_traffic(traffic: Traffic) -> None:
    with pytest.raises(PackageError, match="no such version"):
        traffic.replace("late", TrafficPolicy(number=1, phase="champion", champion="000009"), expect=None)
    assert traffic.get("late") is None


@pytest.mark.parametrize("body", [{}, [], {"number": 1, "phase": "x", "shadows": [], "sticky": []}])
def test_a_corrupt_policy_is_named(traffic: Traffic, project_database: Database, body: object) -> None:
    Records(project_database, "traffic_policy").append("late", 1, body)
    with pytest.raises(PackageError, match="traffic of model 'late': has a corrupt policy 1"):
        traffic.get("late")
