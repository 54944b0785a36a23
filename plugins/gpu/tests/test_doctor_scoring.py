"""What the doctor says of the runtimes that score a project's champions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.gpu.tests.nvforest_folder import FOLDER as NVFOREST
from plugins.gpu.tests.nvforest_folder import ONLY_LINUX, TWO_TREELITES, add_nvforest
from skewless.contract.settings import Settings
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.runtimes import candidates
from skewless.infra.models.runtimes.candidates import RuntimeCandidate
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.health.checkup.packages import check_scoring
from skewless_gpu import nvforest, xgboost_cuda
from skewless_gpu.cuda import Driver
from tests.worlds.trained import Sandbox

ROOT = Path(__file__).parents[3]
MAIN = "from skewless.cli import main; main()"
ABSENT = Driver(problem="no NVIDIA driver is installed")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (nvforest, xgboost_cuda):
        monkeypatch.setattr(module, "driver", lambda: ABSENT)


def test_a_gpu_that_a_model_asks_for_is_missed(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = candidates.find_candidates

    def as_cuda(algorithm: str, _device: str, path: Path, second: str) -> list[RuntimeCandidate]:
        return asked(algorithm, "cuda", path, second)

    monkeypatch.setattr(candidates, "find_candidates", as_cuda)
    (finding,) = check_scoring(PackageStore.of(ProjectState(place.repo / ".skewless"), Settings()), "gpu")
    assert (finding.name, finding.verdict) == ("scoring fraud", "warn")
    assert "no NVIDIA driver is installed" in finding.detail


@ONLY_LINUX
@pytest.mark.soak
def test_the_doctor_finds_the_packages_of_a_second_runtime(place: Sandbox) -> None:
    assert NVFOREST.is_dir(), "make setup-nvforest"
    environment = {**os.environ, "PYTHONPATH": str(NVFOREST), "SKEWLESS_SECOND_RUNTIME": "cpu"}
    command = [sys.executable, "-c", MAIN, "doctor", "--repo", str(place.repo), "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "nvforest-cu12" in checks["gpu packages"]["detail"]
    own, second = checks["scoring fraud"]["facts"]
    assert (own["role"], second["runtime"].partition("-")[0]) == ("own", "nvforest")


@ONLY_LINUX
@TWO_TREELITES
def test_the_doctor_tries_a_second_runtime_as_a_server_would(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    add_nvforest(monkeypatch)
    (finding,) = check_scoring(PackageStore.of(ProjectState(place.repo / ".skewless"), Settings()), "cpu")
    own, second = finding.facts
    assert (own["role"], own["bit_equal"]) == ("own", True)
    assert second["runtime"].startswith("nvforest-cpu-")
    assert second["role"] in {"chosen", "slower"}
    assert (second["bit_equal"], second["largest_difference"]) == (True, 0.0)
    assert (own["rows"], second["rows"]) == (64, 64)
    assert second["seconds"] > 0


def test_a_second_runtime_that_cannot_be_opened_is_told_why(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvforest, "is_installed", lambda: True)
    monkeypatch.setitem(sys.modules, "nvforest", None)
    (finding,) = check_scoring(PackageStore.of(ProjectState(place.repo / ".skewless"), Settings()), "cpu")
    assert (finding.name, finding.verdict) == ("scoring fraud", "warn")
    assert "nvforest-cpu is rejected" in finding.detail
    assert "import of nvforest halted" in finding.detail
    assert [fact["role"] for fact in finding.facts] == ["own", "refused"]
