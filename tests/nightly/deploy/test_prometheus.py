"""A real Prometheus scrapes a running project and finds what rules and dashboards ask; an alert is delivered."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest
import yaml

from tests.deploy.test_rules import PROMETHEUS, RULES, run_tool
from tests.docs.pages import blocks, page
from tests.servers.prediction import MAIN, ROOT, PredictionServer
from tests.worlds.command_line import run
from tests.worlds.ports import free_ports
from tests.worlds.waiting import eventually
from tests.worlds.windowed import trained_repo
from tools.dashboards import DASHBOARDS, FOLDER, text_of

pytestmark = pytest.mark.long
# Only after a fault, or with TLS or API keys: the runbooks' alerts about them are tested by promtool.
RARE = {
    "skewless_refused_requests_total",
    "skewless_log_dropped_total",
    "skewless_model_refused",
    "skewless_parity_mismatches",
    "skewless_certificate_expires_seconds",
    "skewless_alert",
}


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """A project whose three programs are scraped.

    Attributes:
        port: of Prometheus.
        received: the alerts that came from Alertmanager, by receiver.
    """

    repo: Path
    server: PredictionServer
    port: int
    received: list[tuple[str, dict[str, Any]]]

    def ask(self, query: str) -> list[Any]:
        """Return the series of a query."""
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{urlencode({'query': query})}", timeout=20) as reply:
            series: list[Any] = json.load(reply)["data"]["result"]
            return series


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    for name in ("prometheus", "prometheus-alertmanager"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} on this machine: `apt-get install prometheus prometheus-alertmanager` brings it")
    folder = tmp_path_factory.mktemp("monitoring")
    ports = dict(zip(("scheduler", "stream", "prometheus", "alertmanager"), free_ports(4), strict=True))
    settings = f"scheduler_metrics_port: {ports['scheduler']}\nport: 0\nmaterialize_cron: '@every 5s'\n"
    repo = trained_repo(folder / "air", settings)
    (repo / "clock").unlink()
    (repo / "skewless.yaml").write_text(f"threads: 1\n{settings}")
    with ExitStack() as stack:
        server = PredictionServer.start(repo)
        stack.callback(server.stop)
        stack.enter_context(running([sys.executable, "-c", MAIN, "scheduler", "--repo", str(repo)]))
        stream = [sys.executable, "-c", MAIN, "stream", "--repo", str(repo), "--metrics-port", str(ports["stream"])]
        stack.enter_context(running(stream))
        received = stack.enter_context(receiving(folder))
        ports["server"] = urlsplit(server.url).port or 0
        configure(folder, ports)
        stack.enter_context(running(alertmanager(folder, ports["alertmanager"])))
        stack.enter_context(running(prometheus(folder, ports["prometheus"])))
        monitoring = Monitoring(repo=repo, server=server, port=ports["prometheus"], received=received)
        eventually(lambda: is_ready(monitoring.port))
        yield monitoring


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Run a program in the background."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield
        process.send_signal(signal.SIGTERM)


@contextmanager
def receiving(folder: Path) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Receive the webhooks of Alertmanager; the port is in the file ``receiver``."""
    received: list[tuple[str, dict[str, Any]]] = []

    class AlertReceiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.extend((self.path.removeprefix("/"), alert) for alert in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), AlertReceiver) as receiver:
        (folder / "receiver").write_text(str(receiver.server_port))
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield received
        receiver.shutdown()
        thread.join()


def configure(folder: Path, ports: dict[str, int]) -> None:
    """Write the files of ``infra/deploy`` with the ports of this run, and seconds instead of minutes."""
    changes = {"127.0.0.1:8000": "server", "127.0.0.1:9101": "scheduler", "127.0.0.1:9102": "stream"}
    text = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8").replace("15s", "1s")
    for address, name in (changes | {"127.0.0.1:9093": "alertmanager"}).items():
        assert text.count(f'"{address}"') == 1
        text = text.replace(f'"{address}"', f'"127.0.0.1:{ports[name]}"')
    (folder / "prometheus.yml").write_text(text)
    rules = RULES.read_text(encoding="utf-8")
    (folder / "rules.yml").write_text(re.sub(r"for: \d+m", "for: 2s", rules))
    routes = (PROMETHEUS / "alertmanager.yml").read_text(encoding="utf-8")
    routes = routes.replace("127.0.0.1:9099", f"127.0.0.1:{(folder / 'receiver').read_text()}")
    (folder / "alertmanager.yml").write_text(re.sub(r"group_wait: \d+s", "group_wait: 1s", routes))


def alertmanager(folder: Path, port: int) -> list[str]:
    options = [f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alerts"]
    return ["prometheus-alertmanager", *options, f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]


def prometheus(folder: Path, port: int) -> list[str]:
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series"]
    return ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"]


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def predict(server: PredictionServer) -> None:
    assert server.post("/predict", '{"model": "late", "rows": [{"carrier": "AA"}]}')[0] == 200


def panel_queries() -> list[str]:
    return sorted({query for panels in DASHBOARDS.values() for panel in panels for query in panel.queries.values()})


def rule_series() -> list[str]:
    """Return the names of all series that the rules read, without those that they record themselves."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    return sorted(set(re.findall(r"\bskewless_\w+", "\n".join(expressions))))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_files_are_those_of_the_tool(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text_of(name)


def test_each_query_of_a_panel_returns_series(monitoring: Monitoring) -> None:
    def empty() -> list[str]:
        predict(monitoring.server)
        return [query for query in panel_queries() if not monitoring.ask(query.replace("$__rate_interval", "30s"))]

    eventually(empty, lambda missing: not missing)


def test_each_series_of_a_rule_is_scraped_or_comes_with_its_fault(monitoring: Monitoring) -> None:
    names = rule_series()
    assert len(names) > 20
    predict(monitoring.server)
    eventually(lambda: [name for name in names if name not in RARE and not monitoring.ask(name)], lambda seen: not seen)
    documented = page("metrics.md") + page("streams.md") + page("scheduler.md")
    assert [name for name in RARE if f"`{name}`" not in documented] == []
    assert set(names) >= RARE


def test_prometheus_takes_every_metric(monitoring: Monitoring) -> None:
    run_tool("check", "metrics", text=monitoring.server.get("/metrics"))


def test_an_alert_of_a_stopped_server_is_delivered_and_ends(monitoring: Monitoring) -> None:
    server = monitoring.server
    server.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: delivered(monitoring, "firing"))
    finally:
        server.process.send_signal(signal.SIGCONT)
    ((receiver, alert),) = delivered(monitoring, "firing")[:1]
    assert receiver == "on-call"
    assert alert["annotations"]["summary"].startswith("127.0.0.1:")
    assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#skewlessserverdown"
    eventually(lambda: not monitoring.ask('ALERTS{alertname="SkewlessServerDown"}'))


def delivered(monitoring: Monitoring, status: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (receiver, alert)
        for receiver, alert in list(monitoring.received)
        if alert["labels"]["alertname"] == "SkewlessServerDown" and alert["status"] == status
    ]


def test_the_commands_of_the_runbooks_run(monitoring: Monitoring) -> None:
    lines = [line for block in blocks(page("runbooks.md"), "sh") for line in block.splitlines()]
    assert len(lines) > 15
    codes = {}
    for line in lines:
        words = line.replace("fraud", "late").split()[1:]
        said = run(*words, "--repo", monitoring.repo)
        codes[line] = said.code
        assert "Traceback" not in said.stderr
    assert codes.pop("skewless rollback fraud --dry-run") == 8  # there was no champion before
    assert codes.pop("skewless doctor") in (0, 1)
    assert set(codes.values()) == {0}, codes
