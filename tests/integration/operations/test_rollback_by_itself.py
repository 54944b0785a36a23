"""A challenger of a real server that begins to fail, to be slow or to shift its scores has no traffic seconds later."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from skewless.client import Client
from skewless.contract.errors import SkewlessError
from skewless.infra.models.rollout.counts import read_counts
from skewless.infra.platform.alerts.alerts import open_alerts
from skewless.operations.models import rollout
from tests.servers.prediction import ROOT, PredictionServer
from tests.worlds.rollouts import NEW, OLD, champion, make_rollout, standing
from tests.worlds.trained import MODEL, Sandbox, ask, opened_copy
from tests.worlds.waiting import eventually

HALF = (
    "Rollout(steps=(0.5,), step=timedelta(days=1), guardrails=Guardrails(latency=2.0, score_shift=0.2,"
    " least_requests=60))"
)
_CALLERS, _PAUSE_S = 2, 0.01
_CARDS = 2_000


@pytest.fixture(scope="session")
def half(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rollout(trained, tmp_path_factory.mktemp("half") / "p", HALF, rounds=50)


@pytest.fixture
def spot(half: Path, tmp_path: Path) -> Iterator[Sandbox]:
    with opened_copy(half, tmp_path / "p") as place:
        yield place


@contextmanager
def serving(place: Sandbox) -> Iterator[PredictionServer]:
    settings = {"SKEWLESS_PORT": "0", "SKEWLESS_CLOCK": f"file:{place.repo}/.skewless/clock"}
    kept = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.operations.faulty_server", str(place.repo)],
        cwd=ROOT,
        env={**kept, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        server = PredictionServer(process=process, url=json.loads(process.stdout.readline())["url"])
        try:
            yield server
        finally:
            process.terminate()


@contextmanager
def asked(server: PredictionServer) -> Iterator[None]:
    """Ask for payments of many cards until the block ends."""
    over = threading.Event()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        with Client(server.url) as client:
            while not over.wait(_PAUSE_S):
                (row,) = ask(1, chance.randrange(_CARDS))
                with suppress(SkewlessError):
                    client.predict([{**row, "amount": chance.expovariate(0.05)}])

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(_CALLERS)]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        over.set()
        for caller in callers:
            caller.join()


def versions(server: PredictionServer, n: int = 100) -> set[str]:
    """Who answers n cards now; who fails counts as no version."""
    found = set()
    with Client(server.url) as client:
        for row in ask(n):
            reply = client.predict([row])
            found.add(reply.version or reply.predictions[0].version or "")
    return found


# In make test, test_routing.py has what a server counts, test_guardrails.py what is judged of it, and test_rollout.py
# what a step does of a breach.
@pytest.mark.soak
@pytest.mark.parametrize(
    ("fault", "guardrails"),
    [("fails", {"errors"}), ("slow", {"latency", "latency_median"}), ("shifts", {"score_shift"})],
)
def test_a_fault_is_rolled_back(
    spot: Sandbox, fault: str, guardrails: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    project = spot.project
    rollout.begin_rollout(project, MODEL, NEW)
    with serving(spot) as server:
        assert versions(server) == {OLD, NEW}
        with asked(server):
            counts = eventually(
                lambda: read_counts(project.state, MODEL, 1),
                lambda seen: len(seen) == 2 and min(each.requests for each in seen.values()) > 60,
            )
            assert set(counts) == {OLD, NEW}
            assert rollout.step_rollout(project, MODEL).change is None
            (spot.repo / "fault").write_text(fault)
            began = time.monotonic()
            eventually(lambda: rollout.step_rollout(project, MODEL).change == "back")
            decided = time.monotonic() - began
            eventually(lambda: server.get(f"/models/{MODEL}").get("traffic"), lambda traffic: not traffic)
            took = time.monotonic() - began
        assert versions(server) == {OLD}
    with capsys.disabled():
        sys.stdout.write(f"\n{fault}: decided after {decided:.1f} s, traffic is back after {took:.1f} s\n")
    policy = standing(project)
    assert (policy.phase, policy.champion, champion(project)) == ("champion", OLD, OLD)
    assert policy.evidence is not None
    assert guardrails & {one["guardrail"] for one in policy.evidence["guardrails"] if one["breached"]}
    assert [alert.name for alert in open_alerts(project.state)] == ["rollout"]
