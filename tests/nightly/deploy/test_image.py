"""The server's image: what is in it, and a container of it with the fewest rights, asked and stopped."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from skewless.contract.extras import MODULES
from skewless.version import __version__
from tests.nightly.deploy.image import (
    CONTAINERFILE,
    HARDENED,
    ROOT,
    UID,
    Container,
    podman,
    running_container,
    wait_for,
)
from tests.worlds.ports import free_ports
from tests.worlds.trained import MODEL, ask, opened_copy

LARGEST = 350_000_000  # bytes, unpacked
GRACE_S = 20
soak = pytest.mark.soak


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A container that serves a trained project, and the scores that it must give."""

    container: Container
    port: int
    scores: list[float]

    def predict(self, rows: int = 3) -> tuple[int, list[float]]:
        """Return status and scores of a request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            body = json.dumps({"model": MODEL, "rows": ask(rows)})
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            predictions = json.loads(reply.read()).get("predictions", [])
            return reply.status, [prediction["score"] for prediction in predictions]
        finally:
            connection.close()

    def run_python(self, code: str) -> str:
        """Return what a program in the container prints."""
        return podman("exec", self.container.name, "python", "-c", code)


@pytest.fixture(scope="module")
def files(server_image: str) -> Iterator[Path]:
    """The root of the server's image."""
    yield Path(podman("image", "mount", server_image))
    podman("image", "unmount", server_image)


@pytest.fixture
def served_image(server_image: str, trained: Path, tmp_path: Path) -> Iterator[RunningServer]:
    with opened_copy(trained, tmp_path / "project") as place:
        scores = place.predict(ask(3)).scores.tolist()
    (port,) = free_ports(1)
    settings = {"SKEWLESS_PORT": str(port), "SKEWLESS_AUTH": "off", "SKEWLESS_CLOCK": "file:.skewless/clock"}
    settings["HEALTH_URL"] = f"http://127.0.0.1:{port}/health/live"
    with running_container(server_image, project=tmp_path / "project", settings=settings) as container:
        wait_for(f"http://127.0.0.1:{port}/health/ready")
        yield RunningServer(container=container, port=port, scores=scores)


def test_the_containerfile_is_clean() -> None:
    linter = ROOT / ".venv-deploy" / "bin" / "hadolint"
    if not linter.exists():
        pytest.skip("no hadolint on this machine: `make setup-deploy` brings it")
    done = subprocess.run([str(linter), str(CONTAINERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_containerfile_pins_its_base_and_all_requirements() -> None:
    text = CONTAINERFILE.read_text(encoding="utf-8")
    assert re.findall(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}", "build", "scratch"}
    installs = re.findall(r" install (?:[^&]|&(?!&))*", text.replace("\\\n", " "))
    assert [one for one in installs if "pip" in one and "--require-hashes" not in one and "/dist/" not in one] == []
    versions = re.findall(r'image\.version="([^"]*)"', text)
    assert versions == [__version__] * 2


@soak
def test_the_image_is_small_and_says_what_it_is(server_image: str) -> None:
    (facts,) = json.loads(podman("image", "inspect", server_image))
    assert facts["Size"] < LARGEST
    assert facts["User"] == f"{UID}:{UID}"
    assert facts["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert facts["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert facts["Config"]["StopSignal"] == "SIGTERM"


@soak
def test_the_image_has_no_shell_and_no_package_of_jobs(files: Path) -> None:
    programs = {path.name for folder in ("bin", "sbin", "usr/bin", "usr/sbin") for path in (files / folder).glob("*")}
    assert {name for name in programs if not name.startswith("python3")} == set()
    assert [path for path in files.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o6000] == []
    (packages,) = files.glob("opt/skewless/lib/python3*/site-packages")
    absent = {"duckdb", "feast", "great_expectations", "pandas", "pip", "scipy", "sqlalchemy"}
    assert {path.name for path in packages.iterdir()} & absent == set()


@soak
def test_the_image_lists_its_parts(files: Path) -> None:
    bill = json.loads((files / "usr/share/sbom/skewless.cdx.json").read_text(encoding="utf-8"))
    known = {(item["name"], item["version"]) for item in bill["components"]}
    installed = {
        tuple(path.name.removesuffix(".dist-info").lower().replace("_", "-").rsplit("-", 1))
        for path in files.glob("opt/skewless/lib/python3*/site-packages/*.dist-info")
    }
    assert installed - known == {("skewless", __version__)}
    assert {"python", "libc6", "libgomp1"} <= {name for name, _ in known}


@soak
def test_a_container_predicts_with_the_fewest_rights(served_image: RunningServer) -> None:
    assert served_image.predict() == (200, served_image.scores)
    assert podman("healthcheck", "run", served_image.container.name) == ""
    status = dict(
        re.findall(r"^(\w+):\s+(.*)$", served_image.run_python("print(open('/proc/1/status').read())"), re.MULTILINE)
    )
    assert status["Uid"].split() == [str(UID)] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    write = "import errno\ntry:\n open('/x', 'w')\nexcept OSError as error:\n print(errno.errorcode[error.errno])"
    assert served_image.run_python(write) == "EROFS"


@soak
def test_a_container_answers_what_it_has_accepted_before_it_ends(served_image: RunningServer) -> None:
    statuses: list[int] = []
    failures: list[Exception] = []

    def ask_until_refused() -> None:
        while True:
            try:
                statuses.append(served_image.predict()[0])
            except ConnectionRefusedError:
                return
            except (OSError, ValueError) as error:
                failures.append(error)
                return

    callers = [threading.Thread(target=ask_until_refused) for _ in range(8)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    started = time.monotonic()
    code = served_image.container.stop(GRACE_S)
    took = time.monotonic() - started
    for caller in callers:
        caller.join()
    assert (code, set(statuses), failures) == (0, {200}, [])
    assert took < GRACE_S / 2


@soak
def test_the_libraries_of_jobs_can_be_imported(jobs_image: str) -> None:
    modules = [
        *MODULES["serve"],
        *MODULES["project"],
        "scipy.stats",
        "sqlalchemy",
        "xgboost",
        "skewless.training.train",
    ]
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)"
    podman("run", "--rm", *HARDENED, "--entrypoint=python", jobs_image, "-c", code)
