"""What each platform does with a container, by its published contract: variables, mounts, health checks, requests.

A container is a process of this machine in a mount namespace of its own, or one of the image (``image.py``).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.servers.prediction import MAIN, ROOT
from tests.worlds.waiting import PATIENCE_S, eventually

JSON, CSV = "application/json", "text/csv"
_NAMESPACE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
PING_S = 2.0  # SageMaker's timeout of /ping, the shortest of all


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A platform's side of the contract.

    Args:
        name: in ``SKEWLESS_PLATFORM``, which the user sets.
        mount: where the platform puts the model.
        predict: path of predictions.
        health: path of the health check.
        grace_s: from SIGTERM to SIGKILL.
        variables: what the platform sets, by the port that it chooses.
    """

    name: str
    mount: str
    predict: str
    health: str
    grace_s: float
    variables: Mapping[str, str] = field(default_factory=dict)
    port_variable: str = "SKEWLESS_PORT"

    def environment(self, port: int) -> dict[str, str]:
        """Return the variables of a container."""
        return {"SKEWLESS_PLATFORM": self.name, **self.variables, self.port_variable: str(port)}


SAGEMAKER = Driver(
    name="sagemaker",
    mount="/opt/ml/model",
    predict="/invocations",
    health="/ping",
    grace_s=30,
    variables={"SAGEMAKER_SAFE_PORT_RANGE": "20000-20999"},
    port_variable="SAGEMAKER_BIND_TO_PORT",
)
VERTEX = Driver(
    name="vertex",
    mount="/mnt/artifacts",
    predict="/v1/endpoints/12/deployedModels/34:predict",
    health="/v1/endpoints/12/deployedModels/34",
    grace_s=30,
    variables={
        "AIP_PREDICT_ROUTE": "/v1/endpoints/12/deployedModels/34:predict",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/12/deployedModels/34",
        "AIP_STORAGE_URI": "/mnt/artifacts",  # a bucket's address in the cloud
        "AIP_MODE": "PREDICTION",
        "AIP_ENDPOINT_ID": "12",
        "AIP_DEPLOYED_MODEL_ID": "34",
    },
    port_variable="AIP_HTTP_PORT",
)
AZURE = Driver(
    name="azure",
    mount="/var/azureml-app/azureml-models/fraud/1",
    predict="/score",
    health="/",
    grace_s=30,
    variables={"AZUREML_MODEL_DIR": "/var/azureml-app/azureml-models/fraud/1"},
)
KSERVE = Driver(
    name="kserve",
    mount="/mnt/models",
    predict="/v2/models/fraud/infer",
    health="/v2/models/fraud/ready",
    grace_s=30,
)
DRIVERS = (SAGEMAKER, VERTEX, AZURE, KSERVE)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A reply of a container."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - of any type
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class PlatformContainer:
    """A started container, as its platform reaches it."""

    driver: Driver
    port: int

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout: float = PATIENCE_S,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the reply to a request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            reply = connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(status=reply.status, headers=found, body=reply.read())
        finally:
            connection.close()

    def predict(self, body: bytes, content_type: str = JSON, accept: str = "*/*") -> Reply:
        """Return the reply to a prediction, with the headers that a platform passes on."""
        headers = {"content-type": content_type, "accept": accept}
        return self.ask("POST", self.driver.predict, body, headers=headers)

    def is_healthy(self) -> bool:
        """Return whether the health check passes within the shortest time of a platform."""
        try:
            return self.ask("GET", self.driver.health, timeout=PING_S).status == 200
        except OSError:
            return False

    def wait(self) -> None:
        """Poll the health check, as the platform does after the start."""
        eventually(self.is_healthy)


@dataclass(frozen=True, kw_only=True)
class LocalContainer(PlatformContainer):
    """A process of this machine, whose only difference from a container is its root."""

    process: subprocess.Popen[str]
    log: Path

    def wait(self) -> None:
        """Poll the health check, unless the process has ended."""
        eventually(lambda: self.is_healthy() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        """Send SIGTERM; the process must end within the platform's grace, cleanly."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(self.driver.grace_s) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()


@contextmanager
def local_container(driver: Driver, model: Path, port: int, settings: Mapping[str, str]) -> Iterator[LocalContainer]:
    """Run ``skewless serve`` as the platform runs an image: the model is mounted, read-only, at the platform's path."""
    if shutil.which(_NAMESPACE[0]) is None:
        pytest.skip("no unshare on this machine: `apt-get install util-linux` brings it")
    if subprocess.run([*_NAMESPACE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces")
    with tempfile.TemporaryDirectory() as work:
        log = Path(work) / "log"
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"},
            **driver.environment(port),
            "TMPDIR": work,  # where the server puts its state
            "PYTHONPATH": str(ROOT),
            **settings,
        }
        with log.open("w") as output:
            process = subprocess.Popen(
                [*_NAMESPACE, "sh", "-c", _mounting(driver.mount, model)],
                cwd=work,
                env=environment,
                stdout=output,
                stderr=output,
                text=True,
            )
        container = LocalContainer(driver=driver, port=port, process=process, log=log)
        try:
            yield container
        finally:
            process.kill()
            process.wait()


def _mounting(mount: str, model: Path) -> str:
    """Return a script that mounts a model, read-only, and becomes the server."""
    steps = [
        f"exec 3<{shlex.quote(str(model))}",  # the folder may be below the one that is hidden next
        f"mount -t tmpfs none /{mount.split('/')[1]}",  # the path need not exist on this machine
        f"mkdir -p {mount}",
        f"mount --bind /proc/self/fd/3 {mount}",
        f"mount -o remount,ro,bind {mount}",
        "exec 3<&-",
        f"exec {shlex.join([sys.executable, '-c', MAIN, 'serve'])}",
    ]
    return " && ".join(steps)
