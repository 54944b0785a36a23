"""A feature is changed while server and stream worker run: values stay right, and nothing is started again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.clock import OffsetClock
from skewless.infra.online.private_server import PrivateServer
from tests.servers.prediction import ROOT
from tests.worlds.command_line import done, run
from tests.worlds.windowed import CARRIERS, HOUR, MINUTE, NOW, write_repo

_SECOND_MODEL = """
from dataclasses import replace
MODELS.append(replace(MODELS[0], name="still"))
"""
_MORE = """        Aggregation(column="arr_delay", function="max", time_window=HOUR, name="max_delay_1h"),
"""


@dataclass
class Air:
    """The project with its processes."""

    repo: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sent: list[tuple[str, float, int]] = field(default_factory=list)

    def start(self, verb: str, *words: str) -> None:
        command = [sys.executable, "-m", "skewless.cli", verb, "--repo", str(self.repo), "--json", *words]
        with (self.repo / f"{verb}.log").open("ab") as log:
            self.processes[verb] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        if verb == "serve":
            until((self.repo / ".skewless/server.json").exists, "the server is ready")

    def kill(self, verb: str) -> None:
        process = self.processes.pop(verb)
        process.kill()
        process.wait(10)

    def stop(self, verb: str) -> None:
        process = self.processes.pop(verb)
        process.terminate()
        assert process.wait(20) == 0

    @property
    def url(self) -> str:
        return str(json.loads((self.repo / ".skewless/server.json").read_text())["url"])

    def ask(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=10) as reply:  # noqa: S310
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
        until(lambda: self.applied() and self.logged() == 600 + len(self.sent), "all events are applied")

    def logged(self) -> int:
        (source,) = done("status", "--repo", self.repo)["sources"]
        return int(source["log_rows"])

    def applied(self) -> bool:
        return all(view["lag"] == 0 for view in done("status", "--repo", self.repo)["windows"])

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


def until(true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"did not come: {what}"
        time.sleep(0.1)


@pytest.fixture
def air(tmp_path: Path) -> Iterator[Air]:
    repo = write_repo(tmp_path / "p")
    models = (repo / "models.py").read_text().replace("tolerance=1.0", "tolerance=1.0, beat_baseline=False")
    (repo / "models.py").write_text(models + _SECOND_MODEL)
    place = Air(repo)
    for words in (("apply",), ("import",), ("bootstrap",), ("materialize",), ("train",)):
        done(*words, "--repo", repo)
    with ended(place):
        place.start("stream")
        place.start("serve", "--port", "0")
        yield place


@contextmanager
def ended(place: Air) -> Iterator[None]:
    try:
        yield
    finally:
        for process in place.processes.values():
            process.kill()
            process.wait(10)
        PrivateServer(place.repo / ".skewless").stop()


def edit(repo: Path, before: str, after: str, name: str = "definitions.py") -> None:
    text = (repo / name).read_text()
    assert before in text
    (repo / name).write_text(text.replace(before, after))


def test_a_feature_is_added_while_it_serves(air: Air) -> None:
    air.land(9)
    assert air.check("late")["version"] == air.check("still")["version"] == "000001"
    edit(air.repo, '        Aggregation(column="carrier",', _MORE + '        Aggregation(column="carrier",')
    plan = done("apply", "--repo", air.repo)["plan"]
    for process in ("stream", "server"):
        until(lambda process=process: plans(air)[process] == plan, f"{process} takes up the plan")  # type: ignore[misc]
    air.land(33)
    assert air.check("late")["version"] == "000001"
    # One model is trained on the new view; the other stays on the old one, which is fed as before.
    assert done("train", "late", "--repo", air.repo)["models"][0]["promoted"]
    until(lambda: air.predict("late")["version"] == "000002", "the new version answers")
    air.land(21)
    reply = air.check("late")
    assert [item["features"]["carrier_now__max_delay_1h"] for item in reply["predictions"]] == [
        max(delay for name, delay, _ in air.sent if name == carrier) for carrier in CARRIERS
    ]
    assert air.check("still")["version"] == "000001"
    views = {item["view"]: item for item in done("status", "--repo", air.repo)["windows"]}
    (old,) = views.keys() - {"carrier_now"}
    assert sorted(views[old]["needed_by"]) == ["late 000001", "still 000001"]
    assert views["carrier_now"]["needed_by"] == ["plan", "late 000002"]
    # A server that starts serves the same.
    air.stop("serve")
    air.start("serve", "--port", "0")
    assert [air.check(name)["version"] for name in ("late", "still")] == ["000002", "000001"]
    # And back over the change of the view.
    assert done("rollback", "late", "--repo", air.repo)["policy"]["champion"] == "000001"
    until(lambda: air.predict("late")["version"] == "000001", "the old version answers")
    air.land(12)
    assert air.check("late")["version"] == "000001"
    assert done("parity", "--repo", air.repo)["ok"]
    replay = done("replay", "--repo", air.repo)
    assert (replay["ok"], replay["different"]) == (True, 0), replay


def plans(air: Air) -> dict[str, str]:
    return {item["kind"]: item["plan"] for item in done("status", "--repo", air.repo)["processes"] if item["lives"]}


def test_a_view_whose_worker_is_dead_does_not_look_fresh(air: Air) -> None:
    air.land(9)
    (view,) = {json.dumps(item["views"]["carrier_now"]["stale"]) for item in air.check("late")["predictions"]}
    assert view == "false"
    pid = air.processes["stream"].pid
    air.kill("stream")
    clock = OffsetClock(air.repo / "clock")
    clock.set(clock.now_us() + 2 * MINUTE)
    reply = air.predict("late")
    for item in reply["predictions"]:
        shown = item["views"]["carrier_now"]
        assert shown["stale"]
        assert 120 < shown["watermark_age_s"] < 180
        assert shown["age_s"] == shown["watermark_age_s"]
    until(lambda: not lives(air, pid), "the dead worker shows", 15)
    checks = {item["name"]: item for item in run("doctor", "--repo", air.repo, "--json").body["checks"]}
    (mine,) = [item for name, item in checks.items() if name.startswith("stream ") and str(pid) in name]
    assert "dead or stuck" in mine["detail"]
    assert checks["stream worker"]["detail"] == "none runs: windows stand still"
    air.start("stream")
    until(lambda: not air.predict("late")["predictions"][0]["views"]["carrier_now"]["stale"], "the view is fresh again")


def lives(air: Air, pid: int) -> bool:
    (found,) = [item["lives"] for item in done("status", "--repo", air.repo)["processes"] if item["pid"] == pid]
    return bool(found)
