"""``skewless serve`` and ``skewless predict`` with nvForest's CPU class beside a library slow from 9 rows on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.infra.runtimes.children import ENVIRONMENT, ONLY_LINUX, children_of, is_there, wait_for
from tests.servers.prediction import ROOT, PredictionServer
from tests.worlds.trained import MODEL, Sandbox, ask, open_project
from tests.worlds.waiting import eventually

pytestmark = ONLY_LINUX

PROGRAM = "tests.integration.serving.second_runtime_program"
MANY = 600
_CALLERS = 3
KILLS = 3
ROWS = ask(MANY)


@pytest.fixture
def expected(place: Sandbox) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What the library's own runtime scores for the rows."""
    scores = place.predict(ROWS).scored.scores
    assert place.model.trials == ()
    return scores


def environment(place: Sandbox, **settings: str) -> dict[str, str]:
    assert is_there(), "run `make setup-nvforest`"
    kept = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    settings = {"SKEWLESS_SECOND_RUNTIME": "cpu", "SKEWLESS_LOG_FLUSH_SECONDS": "0.1", **settings}
    return {**kept, **ENVIRONMENT, "SKEWLESS_PORT": "0", "SKEWLESS_CLOCK": clock(place), **settings}


def clock(place: Sandbox) -> str:
    return f"file:{place.repo}/.skewless/clock"


@contextmanager
def serving(place: Sandbox, **settings: str) -> Iterator[PredictionServer]:
    process = subprocess.Popen(
        [sys.executable, "-m", PROGRAM, "serve", "--repo", str(place.repo), "--json"],
        cwd=ROOT,
        env=environment(place, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield PredictionServer(process=process, url=json.loads(process.stdout.readline())["url"])
        finally:
            process.kill()


def scores(server: PredictionServer, rows: list[dict[str, Any]]) -> list[float]:
    """Ask once; there is no second try."""
    status, _, text = server.ask("POST", "/predict", json.dumps({"rows": rows}).encode())
    assert status == 200, text
    return [row["score"] for row in json.loads(text)["predictions"]]


def counted(server: PredictionServer, what: str) -> dict[str, float]:
    """Return a counter of runtimes, by their library."""
    pattern = rf'(?m)^skewless_runtime_{what}_total{{.*runtime="(nvforest|lightgbm)[^"]*"}} (\S+)$'
    return {name: float(value) for name, value in re.findall(pattern, str(server.get("/metrics")))}


def the_child(server: PredictionServer) -> int:
    (child,) = eventually(lambda: children_of(server.process.pid), lambda found: len(found) == 1)
    return child


def test_one_row_and_many_have_the_library_s_bits_and_the_metrics_say_who_answered(
    place: Sandbox, expected: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> None:
    with serving(place) as server:
        before = counted(server, "rows")
        assert set(before) == {"lightgbm", "nvforest"}
        assert scores(server, ROWS) == expected.tolist()
        after = counted(server, "rows")
        assert (after["lightgbm"] - before["lightgbm"], after["nvforest"] - before["nvforest"]) == (0, MANY)
        assert [scores(server, [row])[0] for row in ROWS[:20]] == expected[:20].tolist()
        later = counted(server, "rows")
        assert (later["lightgbm"] - after["lightgbm"], later["nvforest"] - after["nvforest"]) == (20, 0)
        assert counted(server, "failures") == {"lightgbm": 0, "nvforest": 0}
        (model,) = server.get("/models")["models"]
        assert [(item["role"], item["bit_equal"]) for item in model["runtimes"]] == [("own", True), ("shared", True)]
        assert 1 < model["runtimes"][1]["from_rows"] <= 64
        assert re.fullmatch(r"lightgbm-capi-\S+\|nvforest-cpu-\S+", model["runtime"]["id"])
        assert model["runtime"]["bit_equal"]
        child = the_child(server)
        server.stop()
    wait_for(child)
    report = place.project.replay()
    assert report.ok, report.lines()
    assert report.compared == 2 * MANY + 20


@pytest.mark.soak  # in make test, test_child_ends.py kills the child before a call and in the middle of one
def test_the_child_is_killed_under_load_and_nothing_is_lost(
    place: Sandbox, expected: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> None:
    over = threading.Event()
    answered: list[int] = []
    wrong: list[object] = []

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        while not over.is_set():
            count = int(chance.choice([1, 5, 40, 300, MANY]))
            start = int(chance.integers(0, MANY - count + 1))
            try:
                found = scores(server, ROWS[start : start + count])
            except Exception as error:  # noqa: BLE001 - whatever it is, a request was lost
                wrong.append(error)
                return
            if found != expected[start : start + count].tolist():
                wrong.append((start, count))
            answered.append(count)

    def batches() -> float:
        return counted(server, "batches")["nvforest"]

    with serving(place) as server:
        callers = [threading.Thread(target=work, args=(seed,)) for seed in range(_CALLERS)]
        for caller in callers:
            caller.start()
        try:
            for n in range(1, KILLS + 1):
                before = batches()
                eventually(batches, lambda seen, before=before: seen > before + 3)  # type: ignore[misc]
                child = the_child(server)
                os.kill(child, signal.SIGKILL)
                eventually(lambda: counted(server, "failures")["nvforest"], lambda seen, n=n: seen >= n)  # type: ignore[misc]
                assert the_child(server) != child
                before = batches()
                eventually(batches, lambda seen, before=before: seen > before + 3)  # type: ignore[misc]
        finally:
            over.set()
            for caller in callers:
                caller.join()
        assert wrong == []
        child = the_child(server)
        server.process.send_signal(signal.SIGTERM)
        _, logged = server.process.communicate(timeout=60)
        assert server.process.returncode == 0
        assert "Traceback" not in logged, logged
        assert all(logged.count(event) >= KILLS for event in ("runtime_failed", "runtime_recovered"))
    wait_for(child)
    report = place.project.replay()
    assert report.ok, report.lines()
    assert report.compared == sum(answered) + MANY


@pytest.mark.soak  # in make test, test_child_ends.py closes runtimes, and a server ends
def test_a_version_that_is_unloaded_takes_its_child_along(place: Sandbox) -> None:
    with serving(place, SKEWLESS_KEEP_VERSIONS="1", SKEWLESS_RELOAD_SECONDS="0.05") as server:
        first = the_child(server)
        trained = place.train()
        aliases = place.project.store.aliases
        if aliases.get(MODEL, "champion") != trained.package.version:
            aliases.move(MODEL, "champion", expect="000001", to=trained.package.version, reason="test", now_us=1)
        eventually(lambda: children_of(server.process.pid) - {first})
        wait_for(first)
        second = the_child(server)
        assert scores(server, ROWS)
        server.process.kill()
        server.process.wait()
        wait_for(second)


def test_a_file_has_the_same_scores_with_and_without_it(place: Sandbox, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ask(3_000)), tmp_path / "in.parquet")
    with_it, without = tmp_path / "with.parquet", tmp_path / "without.parquet"
    command = [sys.executable, "-m", PROGRAM, "predict", "--repo", str(place.repo), "--json"]
    done = subprocess.run(
        [*command, "--in", str(tmp_path / "in.parquet"), "--out", str(with_it)],
        cwd=ROOT,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with closing(open_project(place.repo, second_runtime="none")) as project:
        project.predict_file(MODEL, tmp_path / "in.parquet", without)
    found = [pq.read_table(target)["score"].to_numpy().tobytes() for target in (with_it, without)]
    assert found[0] == found[1]
    logged = {pq.read_table(path, columns=["runtime_id"])["runtime_id"][0].as_py() for path in place.log_files()}
    assert len(logged) == 2
    assert any("|nvforest-cpu-" in runtime for runtime in logged)
    report = place.project.replay()
    assert report.ok, report.lines()
    assert report.compared == 6_000
