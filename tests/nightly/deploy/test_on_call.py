"""Failures of docs/on-call.md that are made to happen in seconds: what the page shows is seen, and ends as it says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.deploy.test_rules import rules
from tests.docs.pages import blocks, names, page, section, table
from tests.nightly.deploy.on_call import OnCall, titles
from tests.nightly.worlds.small_disk import mounted
from tests.servers.node import Node, running
from tests.servers.prediction import MAIN, ROOT, PredictionServer
from tests.servers.programs import program
from tests.worlds.command_line import done, run
from tests.worlds.edits import edit
from tests.worlds.trained import MODEL, ask, copy_project
from tests.worlds.waiting import eventually

pytestmark = pytest.mark.long
_GOOD, _BAD = ('"skewless.freshness": "30d"', '"skewless.freshness": "1s"')
_SETTINGS = """
clock: file:.skewless/clock
redis_url: {url}
port: 0
threads: 1
max_in_flight: 1
max_wait_ms: 0
"""


def test_each_failure_of_the_page_has_an_alert_a_line_and_a_test() -> None:
    rows = table(page("on-call.md"), "failure", "alert", "the line of `doctor --deep`", "shown by")
    assert [title.partition(". ")[2] for title in titles()] == [row["failure"][1:].partition("]")[0] for row in rows]
    known = {rule["alert"] for rule in rules()}
    for title, row in zip(titles(), rows, strict=True):
        assert set(names(row["alert"])) <= known
        text = section(page("on-call.md"), title)
        assert all(f"`{alert}`" in text for alert in names(row["alert"])), title
        for line in names(row["the line of `doctor --deep`"]):
            assert f"\n{line}" in text, (title, line)
        (file,) = names(row["shown by"])
        assert f'"{title}"' in (ROOT / file).read_text(encoding="utf-8"), title


@dataclass(frozen=True, kw_only=True)
class Night:
    """A project, its Redis and its server, on a disk of their own."""

    on_call: OnCall
    node: Node

    @property
    def repo(self) -> Path:
        return self.on_call.repo

    @property
    def server(self) -> PredictionServer:
        assert self.on_call.server is not None
        return self.on_call.server


@pytest.fixture(scope="module")
def night(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    with ExitStack() as stack:
        node = stack.enter_context(running(Node(program("redis"), folder / "redis", {"appendonly": "yes"})))
        repo = folder / "disk/project"
        repo.parent.mkdir()
        if os.geteuid() == 0 and shutil.which("mount"):
            stack.enter_context(mounted(repo.parent, "64m"))
        copy_project(trained, repo)
        with (repo / "skewless.yaml").open("a") as file:
            file.write(_SETTINGS.format(url=node.url))
        edit(repo, _GOOD.replace("30d", "2d"), _GOOD)
        for command in ("apply", "materialize", "freshness"):
            done(command, "--repo", repo)
        server = PredictionServer.start(repo)
        stack.callback(server.stop)
        yield Night(on_call=OnCall(repo=repo, server=server), node=node)


def predict(night: Night, rows: int = 1) -> int:
    """Return the status of a request of some rows."""
    body = orjson.dumps({"model": MODEL, "rows": ask(rows)})
    return night.server.ask("POST", "/predict", body)[0]


def test_the_first_look_changes_nothing_and_says_something(night: Night) -> None:
    (block,) = blocks(section(page("on-call.md"), "First look"), "sh")
    for line in block.splitlines():
        said = run(*line.split()[1:], "--repo", night.repo)
        assert (said.code in {0, 1}, bool(said.stdout), said.stderr) == (True, True, ""), line


def test_redis_is_away(night: Night) -> None:
    title = "1. Redis is down"
    night.node.kill()
    try:
        for _ in range(5):  # as many open the circuit breaker
            predict(night)
        night.on_call.sees(title)
    finally:
        night.node.start()
    done("materialize", "--repo", night.repo)
    predict(night)
    night.on_call.is_over(title)


def test_redis_is_full(night: Night) -> None:
    title = "2. Redis is full"
    night.node.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        night.on_call.sees(title)
    finally:
        night.node.ask("CONFIG", "SET", "maxmemory", 0)
    night.on_call.is_over(title)


def test_the_disk_is_full(night: Night) -> None:
    title = "5. The disk is full"
    disk = night.repo.parent
    if not os.path.ismount(disk):
        pytest.skip("no right to mount a small disk: run the tests as root, with the Debian package mount")
    filler = disk / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(1 << 16))
        except OSError:
            pass
    try:
        predict(night)
        night.on_call.sees(title)
    finally:
        filler.unlink()
    predict(night)
    night.on_call.is_over(title)


@pytest.mark.soak
def test_no_scheduler_leads(night: Night) -> None:
    title = "7. No scheduler leads"
    with scheduler(night.repo) as process:
        eventually(lambda: "leads" in night.on_call.ask("skewless doctor --deep"))
        process.kill()
    night.on_call.sees(title)
    with scheduler(night.repo) as process:
        night.on_call.is_over(title)
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def scheduler(repo: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a scheduler that has nothing to do."""
    crons = ("materialize", "validate", "parity", "replay", "freshness", "drift", "quality", "triggers", "housekeeping")
    environment = {**os.environ, **{f"SKEWLESS_{name.upper()}_CRON": "off" for name in crons}}
    environment["SKEWLESS_SCHEDULER_LEASE_SECONDS"] = "1"
    command = [sys.executable, "-c", MAIN, "scheduler", "--repo", str(repo)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet) as process:
        try:
            yield process
        finally:
            process.kill()


def test_bad_definitions_were_applied(night: Night) -> None:
    title = "9. Bad definitions were applied"
    edit(night.repo, _GOOD, _BAD)
    done("apply", "--repo", night.repo)
    run("freshness", "--repo", night.repo)
    night.on_call.sees(title)
    edit(night.repo, _BAD, _GOOD)
    done("apply", "--repo", night.repo)
    run("freshness", "--repo", night.repo)
    night.on_call.is_over(title)


def test_more_requests_than_the_server_can_answer(night: Night) -> None:
    title = "11. Too many requests, or a slow model"
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            predict(night, 2_000)

    callers = [threading.Thread(target=send) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        night.on_call.sees(title)
    finally:
        over.set()
        for caller in callers:
            caller.join()
    night.on_call.is_over(title)
