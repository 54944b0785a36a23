"""An error of Ray names its cause: first with a stand-in for Ray, which may be absent, then with Ray itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from skewless.contract.errors import StoreError
from tests.worlds.tasks import make_tasks

_SOURCE = Path(__file__).parents[1] / "src/skewless_ray/engine.py"
_VERSIONS = """Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.12.4
This process on 10.0.0.7 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""
_DRIVER = """
import sys, types
import skewless_ray.engine as engine
from skewless.contract.errors import StoreError
from tests.worlds.tasks import make_tasks
only_here = types.ModuleType("only_here")
exec("def execute(text): return text", only_here.__dict__)
only_here.execute.__module__, sys.modules["only_here"] = "only_here", only_here
try:
    executor = engine.RayExecutor(sys.argv[1] or None, 2)
    engine.execute = only_here.execute
    list(executor.run(make_tasks("count", 1)))
except StoreError as error:
    print("ERROR", error)
"""
_TASK_ERROR = "RuntimeError: failed to import on the worker\nModuleNotFoundError: No module named 'skewless'"


class RayError(Exception):
    """As Ray's."""


class RayTaskError(RayError):
    """As Ray's."""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the engine, for which Ray is a stand-in."""
    ray = MagicMock(**{"is_initialized.return_value": False, "cluster_resources.return_value": {"CPU": 2}})
    ray.exceptions = MagicMock(RayError=RayError, RayTaskError=RayTaskError)
    ray.wait.side_effect = lambda references, **_: (references[:1], references[1:])
    for name, value in {"ray": ray, "ray._private": ray._private, "ray.exceptions": ray.exceptions}.items():
        monkeypatch.setitem(sys.modules, name, value)
    spec = spec_from_file_location("engine_of_ray", _SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        (
            "head:6379",
            Exception("No node info found\nfor head node"),
            (
                "Ray cluster head:6379: cannot be reached: No node info found for head node. "
                "Fix: start it, or correct the setting 'engine_address'"
            ),
        ),
        (
            "nonsense",
            ValueError("Invalid address format: nonsense"),
            (
                "Ray cluster nonsense: cannot be reached: Invalid address format: nonsense. "
                "Fix: start it, or correct the setting 'engine_address'"
            ),
        ),
        (
            "head:6379",
            RuntimeError(_VERSIONS),
            (
                "Ray cluster head:6379: has other versions: Version mismatch: The cluster was started with: "
                "Ray: 2.60.0 Python: 3.12.4 This process on 10.0.0.7 was started with: Ray: 2.60.0 Python: 3.11.7. "
                "Fix: install the cluster's versions of Ray and Python here, or these there"
            ),
        ),
        (
            None,
            Exception("The current node timed out during startup."),
            (
                "Ray cluster of this machine: cannot be started: The current node timed out during startup. "
                "Fix: read the logs in /tmp/ray/session_latest/logs"
            ),
        ),
    ],
)
def test_each_error_of_a_connection_has_its_fix(
    module: ModuleType, address: str | None, error: Exception, message: str
) -> None:
    module.ray.init.side_effect = error
    with pytest.raises(StoreError) as caught:
        module.RayExecutor(address)
    assert caught.value.sentence() == message


@pytest.mark.parametrize("own", [None, "7"])
def test_a_given_address_has_one_attempt_unless_the_user_says_how_many(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    name, seen = "RAY_gcs_server_port_wait_time_s", []
    monkeypatch.delenv(name, raising=False)
    if own is not None:
        monkeypatch.setenv(name, own)
    module.ray.init.side_effect = lambda **_: seen.append(os.environ.get(name))
    for address in ("head:6379", None):
        module.RayExecutor(address)
    assert seen == [own or "1", own], "a cluster that is started has Ray's own attempts"


def test_a_worker_without_the_release_is_not_a_lost_worker(module: ModuleType) -> None:
    executor = module.RayExecutor("head:6379")
    module.ray.get.side_effect = RayTaskError(_TASK_ERROR)
    with pytest.raises(StoreError, match=r"No module named 'skewless'.*install this release on each node"):
        list(executor.run(make_tasks("count", 1)))


@pytest.mark.timeout(180)
def test_ray_itself_gives_up_on_an_address_that_does_not_answer() -> None:
    pytest.importorskip("ray", reason="needs Ray: make setup-ray")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address, started = f"127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        output = _drive(address)
    assert f"ERROR Ray cluster {address}: cannot be reached" in output
    assert "Fix: start it, or correct the setting 'engine_address'" in output
    assert time.monotonic() - started < 120, "before: 300 s and more"


@pytest.mark.timeout(180)
def test_ray_itself_says_that_a_worker_cannot_import_a_task() -> None:
    pytest.importorskip("ray", reason="needs Ray: make setup-ray")
    assert "cannot be read by a worker: ModuleNotFoundError: No module named 'only_here'" in _drive("")


def _drive(address: str) -> str:
    command = [sys.executable, "-c", _DRIVER, address]
    return subprocess.run(
        command, check=True, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True, timeout=150
    ).stdout
