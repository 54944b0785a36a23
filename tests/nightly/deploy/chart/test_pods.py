"""The pods of a release run: podman plays what the chart renders, with the real images and services of this machine.

Podman is not a cluster: it has no Services, and pods share this machine's network, so that their ports are moved. It
asks probes with `curl`, which the images do not have: this test asks them from outside, as a kubelet does.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.docs.pages import blocks, page
from tests.nightly.deploy.chart.release import Object, Workload, workloads
from tests.nightly.deploy.image import Container, environment, podman
from tests.worlds.command_line import done
from tests.worlds.ports import free_ports
from tests.worlds.waiting import eventually
from tools.chart import REQUIRED, Chart, read_values
from tools.shared_services import shared_services

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
SECRET = "skewless"  # noqa: S105 - its name
DATABASE = "SKEWLESS_DATABASE_URL"
# No job is due, so that the scheduler ends at once.
QUIET = {"materialize_cron": "0 0 1 1 *", "validate_cron": "0 0 1 1 *"} | {
    f"{job}_cron": "off" for job in ("parity", "replay", "freshness", "drift", "quality", "triggers", "housekeeping")
}


@dataclass(kw_only=True)
class Pods:
    """The pods of one release.

    Attributes:
        ports: of this machine, by component.
        played: the files that podman plays now, by component.
    """

    folder: Path
    objects: list[Object]
    secret: Object
    ports: dict[str, int]
    played: dict[str, Path] = field(default_factory=dict)

    def play(self, component: str) -> Workload:
        """Start the pods of a component."""
        (workload,) = [workload for workload in workloads(self.objects) if workload.component == component]
        file = self.folder / f"{component}.yaml"
        played = Workload(body=json.loads(json.dumps(workload.body)))
        for volume in [*played.pod["volumes"], *played.container["volumeMounts"]]:
            volume["name"] += f"-{component}"  # podman gives an emptyDir to all pods that name it
        if component in self.ports:
            move_port(played, self.ports[component])
        file.write_text(yaml.safe_dump_all([self.secret, played.body]))
        podman("kube", "play", "--network=host", "--replace", str(file))
        self.played[component] = file
        return workload

    def ask(self, workload: Workload, probe: str) -> int:
        """Return the status of a probe, asked as a kubelet does; 0: no connection."""
        get = workload.container[probe]["httpGet"]
        return status(f"http://127.0.0.1:{self.ports[workload.component]}{get['path']}")

    def container(self, workload: Workload) -> str:
        """Return the name of the container of a workload."""
        names = podman("ps", "--all", "--format={{.Names}}").split()
        (found,) = [name for name in names if name.endswith(f"-{workload.component}")]
        return found

    def run(self, workload: Workload, *arguments: str) -> Any:  # noqa: ANN401 - any JSON
        """Return what a command says that is run in a pod, as with ``kubectl exec``."""
        repo = workload.container["args"][workload.container["args"].index("--repo") + 1]
        said = execute(self.container(workload), "skewless", *arguments, "--repo", repo, "--json")
        assert said.returncode == 0, said
        return json.loads(said.stdout.splitlines()[-1])

    def stop(self, component: str) -> None:
        """End the pods of a component, and remove what podman made for them."""
        podman("kube", "down", "--force", str(self.played.pop(component)))


def move_port(workload: Workload, port: int) -> None:
    """Let a container listen on another port; remove the probes, which podman would ask with ``curl``."""
    container = workload.container
    ((name, old),) = workload.ports.items()
    container["args"] = [str(port) if argument == str(old) else argument for argument in container["args"]]
    for entry in container["env"]:
        if entry.get("value") == str(old):
            entry["value"] = str(port)
    container["ports"] = [{"name": name, "containerPort": port}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        del container[probe]


def execute(container: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Return the end of a command in a container."""
    arguments = ["podman", "exec", container, *command]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment())


def status(url: str) -> int:
    try:
        with urlopen(url, timeout=5) as reply:  # noqa: S310 - of this machine
            return int(reply.status)
    except URLError as error:
        return getattr(error, "code", 0)


@pytest.fixture(scope="module")
def images(server_image: str, jobs_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The images with a project, made as docs/kubernetes.md says."""
    folder = tmp_path_factory.mktemp("project")
    done("init", folder / "shop")
    (text,) = blocks(page("kubernetes.md"), "dockerfile")
    made = {}
    for kind, base in (("server", server_image), ("jobs", jobs_image)):
        assert text.startswith("FROM registry.example.com/skewless-server:0.1.0\n")
        (folder / "Containerfile").write_text(f"FROM {base}\n{text.partition(chr(10))[2]}")
        made[kind] = f"localhost/skewless-chart-{kind}:{os.getpid()}"
        build = ["buildah", "bud", "--isolation=chroot", "--pull=never", f"--tag={made[kind]}"]
        files = [f"--file={folder}/Containerfile", str(folder / "shop")]
        said = subprocess.run([*build, *files], capture_output=True, text=True, check=False, env=environment())
        assert said.returncode == 0, said.stderr
    yield made
    for image in made.values():
        podman("rmi", "--force", image)


@pytest.fixture(scope="module")
def pods(chart: Chart, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """A release of the small values, not yet played, with Redis, PostgreSQL and S3."""
    if shutil.which("catatonit") is None:
        pytest.skip("no catatonit on this machine: `apt-get install catatonit` brings it")
    with ExitStack() as stack:
        services = stack.enter_context(shared_services())
        port = stack.enter_context(forwarding(parse_qs(urlsplit(services[DATABASE]).query)["host"][0]))
        services[DATABASE] = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        values = {
            **read_values("small"),
            "images": {**images, "pullPolicy": "Never"},
            "settings": {**read_values("small")["settings"], **QUIET},
            "secretKeys": sorted(services.keys() - set(REQUIRED)),
        }
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": services}
        ports = dict(zip(("server", "stream", "scheduler"), free_ports(3), strict=True))
        folder = tmp_path_factory.mktemp("pods")
        made = Pods(folder=folder, objects=chart.render(values, "shop", "shop"), secret=secret, ports=ports)
        yield made
        for component in list(made.played):
            made.stop(component)


@contextmanager
def forwarding(folder: str) -> Iterator[int]:
    """Forward a port of loopback to the socket file of PostgreSQL, which no pod sees; yield the port."""

    class Forwarder(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as server:
                server.connect(f"{folder}/.s.PGSQL.5432")
                ends = {self.request: server, server: self.request}
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        data = end.recv(65_536)
                        if not data:
                            return
                        ends[end].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forwarder) as forwarder:
        forwarder.daemon_threads = True
        thread = threading.Thread(target=forwarder.serve_forever)
        thread.start()
        yield forwarder.server_address[1]
        forwarder.shutdown()
        thread.join()


def predict(port: int, key: str) -> Any:  # noqa: ANN401 - any JSON
    row = {"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}
    body = json.dumps({"model": "fraud", "rows": [row]}).encode()
    request = Request(f"http://127.0.0.1:{port}/predict", body, {"X-API-Key": key, "Content-Type": "application/json"})
    with urlopen(request, timeout=30) as reply:  # noqa: S310
        return json.load(reply)


def test_a_release_becomes_ready_answers_and_leaves_nothing(pods: Pods) -> None:
    job = pods.container(pods.play("apply"))
    assert podman("wait", job) == "0", Container(name=job).logs()
    pods.stop("apply")

    scheduler = pods.play("scheduler")
    wait_until_ready(pods, scheduler)
    assert [view["view"] for view in pods.run(scheduler, "materialize")["views"]] == ["card_days", "shop_risk"]
    pods.run(scheduler, "import")
    pods.run(scheduler, "train", "fraud")
    key = pods.run(scheduler, "keys", "add", "web")["key"]

    stream = pods.play("stream")
    wait_until_ready(pods, stream)
    server = pods.play("server")
    wait_until_ready(pods, server)
    assert status(f"http://127.0.0.1:{pods.ports['server']}/models") == 401
    reply = predict(pods.ports["server"], key)
    assert 0 < reply["predictions"][0]["score"] < 1
    assert_restricted(pods, server)

    begin = time.monotonic()
    podman("stop", "--time", str(server.pod["terminationGracePeriodSeconds"]), pods.container(server))
    assert podman("inspect", "--format={{.State.ExitCode}}", pods.container(server)) == "0"
    drain = float(server.variables["SKEWLESS_DRAIN_SECONDS"])
    assert drain <= time.monotonic() - begin < server.pod["terminationGracePeriodSeconds"]
    # The log of the pod, which is gone with its disk, is in the storage.
    assert pods.run(scheduler, "replay")["compared"] == 1
    for component in list(pods.played):
        pods.stop(component)
    assert what_is_there() == []


def wait_until_ready(pods: Pods, workload: Workload) -> None:
    """Wait until the probes of a pod succeed."""
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            eventually(lambda probe=probe: pods.ask(workload, probe) == 200)  # type: ignore[misc]
    except AssertionError as error:
        raise AssertionError(Container(name=pods.container(workload)).logs()) from error


def assert_restricted(pods: Pods, workload: Workload) -> None:
    """The process has no rights, and no disk but its volumes."""
    write = "import os, sys; print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])"
    assert podman("exec", pods.container(workload), "python", "-c", write).split() == ["10001", "0" * 16]
    for path, fails in (("/srv/project/x", True), ("/srv/project/.skewless/x", False), ("/tmp/x", False)):  # noqa: S108
        code = f"open({path!r}, 'w')"
        said = execute(pods.container(workload), "python", "-c", code)
        assert ("Read-only file system" in said.stderr) == fails, (path, said.stderr)


def what_is_there() -> list[str]:
    """Return the names of pods, containers, volumes and secrets of the release; other tests have theirs."""
    commands = {"pod": "{{.Name}}", "container": "{{.Names}}", "volume": "{{.Name}}", "secret": "{{.Name}}"}
    found = [
        f"{kind} {name}"
        for kind, form in commands.items()
        for name in podman(kind, "ls", *(["--all"] if kind == "container" else []), f"--format={form}").split()
    ]
    return [name for name in found if re.search(rf" (shop-|(state|tmp)-|{SECRET}$)", name)]
