"""``skewless serve`` and ``skewless predict`` with nvForest's CPU class, which is chosen before a slow library."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plugins.gpu.tests.nvforest_folder import ENVIRONMENT, FOLDER, ONLY_LINUX
from tests.servers.prediction import ROOT, PredictionServer
from tests.worlds.trained import MODEL, Sandbox, ask, open_project

pytestmark = ONLY_LINUX

PROGRAM = "plugins.gpu.tests.second_runtime_program"
MANY = 600
ROWS = ask(MANY)


@pytest.fixture
def expected(place: Sandbox) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What the library's own runtime scores for the rows."""
    scores = place.predict(ROWS).scored.scores
    assert place.model.trials == ()
    return scores


def environment(place: Sandbox, **settings: str) -> dict[str, str]:
    assert FOLDER.is_dir(), "run `make setup-nvforest`"
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


def test_one_row_and_many_have_the_library_s_bits(
    place: Sandbox, expected: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> None:
    with serving(place) as server:
        assert scores(server, ROWS) == expected.tolist()
        assert [scores(server, [row])[0] for row in ROWS[:20]] == expected[:20].tolist()
        assert re.search(
            r'(?m)^skewless_runtime_failures_total{.*runtime="nvforest-\S*"} 0.0$', str(server.get("/metrics"))
        )
        (model,) = server.get("/models")["models"]
        assert [(item["role"], item["bit_equal"]) for item in model["runtimes"]] == [("own", True), ("chosen", True)]
        assert re.fullmatch(r"nvforest-cpu-\S+\|lightgbm-capi-\S+", model["runtime"]["id"])
        assert model["runtime"]["bit_equal"]
        server.stop()
    report = place.project.replay()
    assert report.ok, report.lines()
    assert report.compared == 2 * MANY + 20


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
    assert any(runtime.startswith("nvforest-cpu-") for runtime in logged)
    report = place.project.replay()
    assert report.ok, report.lines()
    assert report.compared == 6_000
