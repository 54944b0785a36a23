"""A feature is changed while server and stream worker run: values stay right, and nothing is started again."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.clock import OffsetClock
from skewless.infra.reads.online.private_server import PrivateServer
from tests.servers.prediction import ROOT
from tests.worlds.command_line import done, run
from tests.worlds.edits import edit
from tests.worlds.waiting import PATIENCE_S, until
from tests.worlds.windowed import CARRIERS, HOUR, MINUTE, NOW, write_repo

_SECOND_MODEL = """
from dataclasses import replace
MODELS.append(replace(MODELS[0], name="still"))
"""
_MORE = """        Aggregation(column="arr_delay", function="max", time_window=HOUR, name="max_delay_1h"),
"""


@dataclass
class ChangedProject:
    """The project with its processes."""

    repo: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sent: list[tuple[str, float, int]] = field(default_factory=list)

    def start(self, verb: str, *words: str) -> None:
        command = [sys.executable, "-m", "skewless.cli", verb, "--repo", str(self.repo), "--json", *words]
        with (self.repo / f"{verb}.log").open("ab") as log:
            self.processes[verb] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        if verb == "serve":
            until((self.repo / ".skewless/server.json").exists)

    def kill(self, verb: str) -> None:
        process = self.processes.pop(verb)
        process.kill()
        process.wait(10)

    def stop(self, verb: str) -> None:
        process = self.processes.pop(verb)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0

    @property
    def url(self) -> str:
        return str(json.loads((self.repo / ".skewless/server.json").read_text())["url"])

    def ask(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=PATIENCE_S) as reply:  # noqa: S310
            return json.loads(reply.read())

    def predict(self, model: str) -> Any:  # noqa: ANN401 - JSON
        rows = [{"carrier": carrier} for carrier in CARRIERS]
        return self.ask("/predict", {"model": model, "rows": rows, "features": True})

    def land(self, n: int) -> None:
        """Send events, and wait until they are applied everywhere."""
        now = OffsetClock(self.repo / "clock").now_us()
        events: list[dict[str, Any]] = [
            {"carrier": CARRIERS[i % 3], "arr_delay": 100.0 + i, "landed_at": now - (n - i) * 1_000} for i in range(n)
        ]
        self.ask("/events/landings", {"events": events})
        self.sent += [(item["carrier"], item["arr_delay"], item["landed_at"]) for item in events]
        until(self.has_applied_all)

    def has_applied_all(self) -> bool:
        status = done("status", "--repo", self.repo)
        (source,) = status["sources"]
        return source["log_rows"] == 600 + len(self.sent) and all(view["lag"] == 0 for view in status["windows"])

    def expected(self, t: int) -> dict[str, tuple[float, float]]:
        """Return count and mean delay of the last hour, per carrier, by brute force."""
        history = [(CARRIERS[i % 3], 0.5 * (i % 41) - 5, NOW - 24 * HOUR + i * 144_000_000) for i in range(600)]
        hop = 5 * MINUTE
        since = (t - HOUR) // hop * hop
        found = {}
        for carrier in CARRIERS:
            delays = [delay for name, delay, at in [*history, *self.sent] if name == carrier and since <= at < t]
            found[carrier] = (float(len(delays)), sum(round(delay * 10) for delay in delays) / (10 * len(delays)))
        return found

    def check(self, model: str) -> Any:  # noqa: ANN401 - JSON
        """Compare what a model sees with brute force; return the reply."""
        reply = self.predict(model)
        wanted = self.expected(reply["t_us"])
        for carrier, item in zip(CARRIERS, reply["predictions"], strict=True):
            view = item["views"]["carrier_now"]
            assert (view["status"], view["stale"]) == ("PRESENT", False), (model, view)
            seen = item["features"]
            assert (seen["carrier_now__landings_1h"], seen["carrier_now__mean_delay_1h"]) == wanted[carrier], model
        return reply


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChangedProject]:
    """A project that is served, and whose worker runs, after each test too."""
    repo = write_repo(tmp_path_factory.mktemp("changed") / "p")
    edit(repo, "tolerance=1.0", "tolerance=1.0, beat_baseline=False", file="models.py")
    with (repo / "models.py").open("a") as file:
        file.write(_SECOND_MODEL)
    place = ChangedProject(repo)
    for words in (("apply",), ("import",), ("backfill",), ("materialize",), ("train",)):
        done(*words, "--repo", repo)
    with ended(place):
        place.start("stream")
        place.start("serve", "--port", "0")
        yield place


@contextmanager
def ended(place: ChangedProject) -> Iterator[None]:
    try:
        yield
    finally:
        for process in place.processes.values():
            process.kill()
            process.wait(10)
        PrivateServer(place.repo / ".skewless").stop()


def test_a_feature_is_added_while_it_serves(changed: ChangedProject) -> None:
    changed.land(9)
    assert changed.check("late")["version"] == changed.check("still")["version"] == "000001"
    edit(changed.repo, '        Aggregation(column="carrier",', _MORE + '        Aggregation(column="carrier",')
    plan = done("apply", "--repo", changed.repo)["plan"]
    for process in ("stream", "server"):
        until(lambda process=process: plans(changed)[process] == plan)  # type: ignore[misc]
    changed.land(33)
    assert changed.check("late")["version"] == "000001"
    # One model is trained on the new view; the other stays on the old one, which is fed as before.
    assert done("train", "late", "--repo", changed.repo)["models"][0]["promoted"]
    until(lambda: changed.predict("late")["version"] == "000002")
    changed.land(21)
    reply = changed.check("late")
    assert [item["features"]["carrier_now__max_delay_1h"] for item in reply["predictions"]] == [
        max(delay for name, delay, _ in changed.sent if name == carrier) for carrier in CARRIERS
    ]
    assert changed.check("still")["version"] == "000001"
    views = {item["view"]: item for item in done("status", "--repo", changed.repo)["windows"]}
    (old,) = views.keys() - {"carrier_now"}
    assert sorted(views[old]["needed_by"]) == ["late 000001", "still 000001"]
    assert views["carrier_now"]["needed_by"] == ["plan", "late 000002"]
    # A server that starts serves the same.
    changed.stop("serve")
    changed.start("serve", "--port", "0")
    assert [changed.check(name)["version"] for name in ("late", "still")] == ["000002", "000001"]
    # And back over the change of the view.
    assert done("rollback", "late", "--repo", changed.repo)["policy"]["champion"] == "000001"
    until(lambda: changed.predict("late")["version"] == "000001")
    changed.land(12)
    assert changed.check("late")["version"] == "000001"
    assert done("parity", "--repo", changed.repo)["ok"]
    replay = done("replay", "--repo", changed.repo)
    assert (replay["ok"], replay["different"]) == (True, 0), replay


def plans(changed: ChangedProject) -> dict[str, str]:
    return {item["kind"]: item["plan"] for item in done("status", "--repo", changed.repo)["processes"] if item["lives"]}


def test_a_view_whose_worker_is_dead_does_not_look_fresh(changed: ChangedProject) -> None:
    changed.land(9)
    (view,) = {json.dumps(item["views"]["carrier_now"]["stale"]) for item in changed.check("late")["predictions"]}
    assert view == "false"
    pid = changed.processes["stream"].pid
    changed.kill("stream")
    clock = OffsetClock(changed.repo / "clock")
    clock.set(clock.now_us() + 2 * MINUTE)
    reply = changed.predict("late")
    for item in reply["predictions"]:
        shown = item["views"]["carrier_now"]
        assert shown["stale"]
        assert 120 < shown["watermark_age_s"] < 180
        assert shown["age_s"] == shown["watermark_age_s"]
    until(lambda: not lives(changed, pid))
    checks = {item["name"]: item for item in run("doctor", "--repo", changed.repo, "--json").body["checks"]}
    (mine,) = [item for name, item in checks.items() if name.startswith("stream ") and str(pid) in name]
    assert "dead or stuck" in mine["detail"]
    assert checks["stream worker"]["detail"] == "is not running: window features do not change"
    changed.start("stream")
    until(lambda: not changed.predict("late")["predictions"][0]["views"]["carrier_now"]["stale"])


def lives(changed: ChangedProject, pid: int) -> bool:
    (found,) = [item["lives"] for item in done("status", "--repo", changed.repo)["processes"] if item["pid"] == pid]
    return bool(found)
