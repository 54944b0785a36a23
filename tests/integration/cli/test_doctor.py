"""What the doctor says of the runtimes that score a project's champions."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.contract.settings import Settings
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.health.checkup.packages import check_scoring
from tests.worlds.command_line import run


def test_without_a_second_runtime_the_library_scores_alone(unasked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_SECOND_RUNTIME", "none")
    (finding,) = check_scoring(PackageStore.of(ProjectState(unasked / ".skewless"), Settings()), "none")
    assert (finding.name, finding.verdict) == ("scoring", "ok")
    assert finding.detail == "only by its own library: fraud 000001 (lightgbm)"
    (same,) = [
        check for check in run("doctor", "--repo", unasked, "--json").body["checks"] if check["name"] == "scoring"
    ]
    assert same == finding.as_dict()


def test_nothing_is_said_where_nothing_is_trained(applied: Path, tmp_path: Path) -> None:
    assert check_scoring(PackageStore.of(ProjectState(applied / ".skewless"), Settings()), "none") == []
    assert check_scoring(PackageStore.of(ProjectState(tmp_path / "nowhere"), Settings()), "none") == []


def test_a_damaged_champion_is_a_finding(unasked: Path) -> None:
    (model,) = (unasked / ".skewless/packages/fraud/000001").glob("model.*")
    model.chmod(0o644)
    model.write_bytes(model.read_bytes().replace(b"leaf_value=", b"leaf_value=1", 1))
    (finding,) = check_scoring(PackageStore.of(ProjectState(unasked / ".skewless"), Settings()), "none")
    assert (finding.name, finding.verdict) == ("scoring fraud", "fail")
