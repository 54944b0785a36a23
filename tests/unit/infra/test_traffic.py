"""Policies are replaced by compare-and-set and keep their history."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, PackageError, StoreError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.rollout.traffic import Traffic


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for version in ("000001", "000002"):
        (tmp_path / "late" / version).mkdir(parents=True)
    return tmp_path


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


def test_a_model_without_a_policy(packages: Path) -> None:
    assert Traffic(packages).get("late") is None
    assert Traffic(packages).number("late") is None
    assert Traffic(packages).history("late") == []
    assert Traffic(packages).get("unknown") is None


def test_policies_are_numbered_and_kept(packages: Path) -> None:
    traffic = Traffic(packages)
    first = traffic.replace("late", policy(0.1), expect=None)
    second = traffic.replace("late", policy(0.5), expect=1)
    assert (first.number, second.number) == (1, 2)
    assert Traffic(packages).get("late") == second
    assert Traffic(packages).history("late") == [first, second]
    assert second.evidence == {"auc": [0.1, None]}


@pytest.mark.parametrize("expect", [None, 2])
def test_another_policy_than_expected_is_a_conflict(packages: Path, expect: int | None) -> None:
    traffic = Traffic(packages)
    traffic.replace("late", policy(), expect=None)
    with pytest.raises(ConflictError, match="is under policy 1, not"):
        traffic.replace("late", policy(0.9), expect=expect)
    assert [one.share for one in traffic.history("late")] == [0.1]


def test_a_number_taken_at_the_last_moment_is_a_conflict(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic, real_link = Traffic(packages), os.link

    def raced(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", real_link)
        target.write_text(json.dumps(policy(0.9).as_dict()))
        real_link(source, target)

    monkeypatch.setattr(os, "link", raced)
    with pytest.raises(ConflictError, match="is under policy 1, not none"):
        traffic.replace("late", policy(0.1), expect=None)
    assert [one.share for one in traffic.history("late")] == [0.9]


def test_a_version_that_does_not_exist_gets_no_traffic(packages: Path) -> None:
    with pytest.raises(PackageError, match="no such version"):
        Traffic(packages).replace("late", TrafficPolicy(number=1, phase="champion", champion="000009"), expect=None)
    assert Traffic(packages).get("late") is None


def test_a_full_disk_changes_nothing(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic(packages)
    first = traffic.replace("late", policy(), expect=None)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        traffic.replace("late", policy(0.5), expect=1)
    assert traffic.get("late") == first


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"number": 1, "phase": "x", "shadows": [], "sticky": []}'])
def test_a_damaged_policy_is_named(packages: Path, text: str) -> None:
    Traffic(packages).replace("late", policy(), expect=None)
    (packages / "late" / "traffic" / "000001.json").write_text(text)
    with pytest.raises(PackageError, match=r"traffic/000001\.json"):
        Traffic(packages).get("late")
