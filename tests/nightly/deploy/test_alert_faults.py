"""A real Prometheus sees each alert begin when its fault is made, and end when it is mended."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from skewless.infra.ingest.streams.redis_link import RedisSender
from skewless.infra.platform.storage.schema import SEGMENT_SUM
from skewless.infra.records.predictions.segments import open_prediction_log
from skewless.project import Project
from tests.deploy.test_rules import RULES
from tests.nightly.deploy.test_prometheus import Monitoring, configure, is_ready, prometheus
from tests.servers.node import Node
from tests.servers.prediction import MAIN, ROOT, PredictionServer
from tests.servers.programs import program
from tests.worlds.command_line import done
from tests.worlds.edits import edit
from tests.worlds.planted import record_content
from tests.worlds.ports import free_ports
from tests.worlds.waiting import eventually
from tests.worlds.windowed import trained_repo, write_facts
from tools.postgres_server import PostgresServer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
SETTINGS = """
threads: 1
port: 0
workers: 2
max_in_flight: 8
materialize_cron: '@every 2s'
parity_cron: '@every 3s'
replay_cron: '@every 3s'
stream_partitions: 1
"""
# Seconds instead of minutes and hours, so that an alert ends soon after its fault.
WINDOWS = {"[5m]": "[8s]", "[10m]": "[8s]", "[15m]": "[60s]", "[30m]": "[10s]", "[1h]": "[12s]", "[6h]": "[15s]"}
# Alerts whose faults are made elsewhere, or only for promtool.
ELSEWHERE = {
    "SkewlessCertificateExpires": "test_on_call_processes.py: the metric of a certificate that ends",
    "SkewlessClockSkew": "test_on_call_processes.py: a wrong clock",
    "SkewlessDiskFull": "test_rules.py alone: filling the disk of this machine would harm other tests",
    "SkewlessLogDropped": "test_rules.py alone: as above",
    "SkewlessAlert": "test_rules.py alone: an alert of the project itself, such as a silent process",
    "SkewlessDrift": "test_rules.py alone: needs a day of predictions",
    "SkewlessViewStale": "test_rules.py alone: needs a view with a limit of age",
    "SkewlessStreamLag": "test_rules.py alone: needs more than 10,000 waiting messages that become more",
}


@dataclass(kw_only=True)
class AlertWatch:
    """A project with two models, whose programs are scraped, and a caller who asks all the time."""

    repo: Path
    node: Node
    database: PostgresServer
    server: PredictionServer
    scheduler: subprocess.Popen[bytes]
    stream: subprocess.Popen[bytes]
    monitoring: Monitoring
    is_over: threading.Event = field(default_factory=threading.Event)

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = self.monitoring.ask('ALERTS{alertstate="firing"}')
        return {series["metric"]["alertname"] for series in found}

    def ask_always(self) -> None:
        """Ask both models, some times a second, until the end."""
        while not self.is_over.wait(0.05):
            for model in ("late", "strict"):
                with suppress(OSError):
                    self.predict(model)

    def predict(self, model: str, rows: int = 1) -> int:
        """Return the status of a request."""
        asked = ",".join(['{"carrier": "AA"}'] * rows)
        return self.server.ask("POST", "/predict", f'{{"model": "{model}", "rows": [{asked}]}}'.encode())[0]


Fault = Callable[[AlertWatch], AbstractContextManager[None]]


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Suspend a process, and its children, for the block."""
    said = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    family = [pid, *map(int, said.stdout.split())]
    for each in family:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in family:
            os.kill(each, signal.SIGCONT)


def server_hangs(alerted: AlertWatch) -> AbstractContextManager[None]:
    return suspended(alerted.server.process.pid)


def stream_hangs(alerted: AlertWatch) -> AbstractContextManager[None]:
    return suspended(alerted.stream.pid)


def scheduler_hangs(alerted: AlertWatch) -> AbstractContextManager[None]:
    return suspended(alerted.scheduler.pid)


@contextmanager
def store_is_away(alerted: AlertWatch) -> Iterator[None]:
    alerted.node.freeze()
    try:
        yield
    finally:
        alerted.node.thaw()


@contextmanager
def store_is_slow(alerted: AlertWatch) -> Iterator[None]:
    """Let each answer of the store take up to 150 ms."""
    is_over = threading.Event()

    def pause() -> None:
        while not is_over.wait(0.01):
            alerted.node.ask("CLIENT", "PAUSE", 150)
            time.sleep(0.15)

    thread = threading.Thread(target=pause)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def database_is_away(alerted: AlertWatch) -> Iterator[None]:
    alerted.database.stop()
    try:
        yield
    finally:
        alerted.database.start()


@contextmanager
def callers_are_too_many(alerted: AlertWatch) -> Iterator[None]:
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            with suppress(OSError):
                alerted.predict("late", rows=400)

    with ThreadPoolExecutor(64) as callers:
        for _ in range(64):
            callers.submit(ask)
        try:
            yield
        finally:
            is_over.set()


@contextmanager
def workers_die(alerted: AlertWatch) -> Iterator[None]:
    for _ in range(4):
        said = subprocess.run(
            ["pgrep", "-f", "skewless.serving.workers", "-P", str(alerted.server.process.pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
        for pid in said.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        eventually(lambda: answers(alerted))
    yield


def answers(alerted: AlertWatch) -> bool:
    try:
        return alerted.predict("late") == 200
    except OSError:
        return False


@contextmanager
def model_is_altered(alerted: AlertWatch) -> Iterator[None]:
    """Alter a byte of the newest version of a model."""
    done("train", "late", "--repo", alerted.repo)
    files = [path for path in (alerted.repo / ".skewless").rglob("*") if path.is_file() and "late" in path.parts]
    path = max((path for path in files if path.name == "model.txt"), key=lambda path: path.parent.name)
    kept = path.read_bytes()
    path.write_bytes(kept[:-9] + b"x" + kept[-8:])
    try:
        yield
    finally:
        path.write_bytes(kept)


@contextmanager
def online_row_is_altered(alerted: AlertWatch) -> Iterator[None]:
    """Delete the rows and states of all carriers."""
    keys = [key for key in alerted.node.ask("KEYS", "sk:*") if b"{carrier|" in key]
    assert keys
    for key in keys:
        alerted.node.ask("DEL", key)
    try:
        yield
    finally:
        done("parity", "--repair", "--repo", alerted.repo)


@contextmanager
def log_is_altered(alerted: AlertWatch) -> Iterator[None]:
    """Alter what was logged in the oldest file of the prediction log, as if no replay had proven it."""
    with Project(alerted.repo) as project:
        path = Path(eventually(open_prediction_log(project.state).files)[0])
        kept, rows = path.read_bytes(), pq.read_table(path)
        place = rows.column_names.index("read_end")
        pq.write_table(
            rows.set_column(place, "read_end", pc.add(rows["read_end"], 1).cast(rows["read_end"].type)), path
        )
        record_content(path, state=project.state)
        unproven = f"is_proven = 0, checksum = {SEGMENT_SUM.changed({'is_proven': '0'})}"
        project.state.database.execute(f"UPDATE segments SET {unproven} WHERE object LIKE ?", f"%{path.name}")
        try:
            yield
        finally:
            path.write_bytes(kept)
            record_content(path, state=project.state)


@contextmanager
def table_is_rubbish(alerted: AlertWatch) -> Iterator[None]:
    (alerted.repo / "data/facts.parquet").write_bytes(b"no table")
    try:
        yield
    finally:
        write_facts(alerted.repo)


@contextmanager
def events_are_rubbish(alerted: AlertWatch) -> Iterator[None]:
    sender = RedisSender(alerted.node.url, project="air", source="landings", n_partitions=1)
    sender.send([b"no event"] * 20)
    try:
        yield
    finally:
        sender.close()


FAULTS: dict[Fault, set[str]] = {
    server_hangs: {"SkewlessServerDown", "SkewlessSeriesMissing"},
    stream_hangs: {"SkewlessStreamDown"},
    scheduler_hangs: {"SkewlessSchedulerWithoutLeader"},
    store_is_away: {
        "SkewlessStoreDown",
        "SkewlessAvailabilityBurn",
        "SkewlessAvailabilitySlowBurn",
        "SkewlessDegraded",
        "SkewlessStreamWaiting",
    },
    store_is_slow: {"SkewlessLatencyBurn", "SkewlessLatencySlowBurn"},
    database_is_away: {"SkewlessDatabaseDown", "SkewlessLogWaiting"},
    callers_are_too_many: {"SkewlessOverloaded"},
    workers_die: {"SkewlessWorkerRestarts"},
    events_are_rubbish: {"SkewlessStreamRejects"},
    table_is_rubbish: {"SkewlessJobFailed"},
    log_is_altered: {"SkewlessReplay"},
    # After it, replay goes on telling of the predictions that missed the rows.
    online_row_is_altered: {"SkewlessParity"},
    model_is_altered: {"SkewlessModelRefused"},
}


@pytest.fixture(scope="module")
def alerted(tmp_path_factory: pytest.TempPathFactory, empty_postgres: Path) -> Iterator[AlertWatch]:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on this machine: `apt-get install prometheus` brings it")
    folder = tmp_path_factory.mktemp("alerted")
    names = ("scheduler", "stream", "prometheus", "alertmanager")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with ExitStack() as stack:
        node = Node(program("valkey"), folder / "store")
        node.start()
        stack.callback(node.kill)
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")))
        data.chmod(0o755)
        database = PostgresServer(data / "data", empty_postgres)
        stack.callback(database.stop)
        where = f"redis_url: {node.url}\ndatabase_url: {database.start()}\n"
        settings = f"{SETTINGS}{where}scheduler_metrics_port: {ports['scheduler']}\n"
        repo = make_repo(folder / "air", where, settings)
        server = PredictionServer.start(repo)
        stack.callback(server.process.kill)
        scheduler = stack.enter_context(started("scheduler", "--repo", str(repo)))
        stream = stack.enter_context(started("stream", "--repo", str(repo), "--metrics-port", str(ports["stream"])))
        (folder / "receiver").write_text("9")
        configure(folder, ports | {"server": urlsplit(server.url).port or 0})
        rules = (folder / "rules.yml").read_text()
        for window, short in WINDOWS.items():
            rules = rules.replace(window, short)
        (folder / "rules.yml").write_text(rules)
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(prometheus(folder, ports["prometheus"]), stdout=log, stderr=log)
        stack.callback(process.kill)
        monitoring = Monitoring(repo=repo, server=server, port=ports["prometheus"], received=[])
        eventually(lambda: is_ready(monitoring.port))
        alerted = AlertWatch(
            repo=repo,
            node=node,
            database=database,
            server=server,
            scheduler=scheduler,
            stream=stream,
            monitoring=monitoring,
        )
        # A counter that Prometheus meets for the first time after a fault has not increased for it.
        eventually(lambda: monitoring.ask("sum(up) == 3 and sum(skewless_worker_restarts_total) == 0"))
        caller = threading.Thread(target=alerted.ask_always)
        caller.start()
        stack.callback(caller.join)
        stack.callback(alerted.is_over.set)
        yield alerted


def make_repo(repo: Path, where: str, settings: str) -> Path:
    """Make a project with a model that takes no missing feature beside the one that does."""
    trained_repo(repo, where)
    edit(repo, "from datetime", "from dataclasses import replace\nfrom datetime", file="models.py")
    with (repo / "models.py").open("a") as file:
        file.write('MODELS.append(replace(MODELS[0], name="strict", missing="refuse"))\n')
    for words in (("apply",), ("train", "strict")):
        done(*words, "--repo", repo)
    (repo / "clock").unlink()
    (repo / "skewless.yaml").write_text(settings)
    return repo


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    command, quiet = [sys.executable, "-c", MAIN, *words], subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet) as process:
        yield process
        process.kill()


def all_alerts() -> set[str]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


def test_every_alert_has_a_fault_or_a_reason() -> None:
    made = set[str]().union(*FAULTS.values())
    assert made.isdisjoint(ELSEWHERE)
    assert made | set(ELSEWHERE) == all_alerts()
    assert set(re.findall(r"\[\d+\w\]", RULES.read_text(encoding="utf-8"))) <= set(WINDOWS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_fires_its_alerts_and_its_mend_ends_them(alerted: AlertWatch, fault: Fault) -> None:
    expected, seen = FAULTS[fault], set[str]()

    def missing() -> set[str]:
        seen.update(alerted.firing())
        return expected - seen

    eventually(alerted.firing, lambda firing: not firing & expected)
    with fault(alerted):
        eventually(missing, lambda missing: not missing)
    eventually(alerted.firing, lambda firing: not firing & expected)
