"""Memory over a thousand reloads: a version that was replaced is gone, with all that was made for it.

The prediction log is off: Arrow's memory does not grow with reloads, except by a megabyte once, after a thousand
files. Garbage is collected again and again, as it is in a server: a heap that it was strewn over stays larger.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.infra.definitions.plans.needed_views import CHAMPION
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.prediction.routing import Options
from skewless.training.train import train
from skewless_oip.signature import OipModels
from tests.servers.prediction import ROOT
from tests.worlds.trained import MODEL, Sandbox, ask, make_project, opened

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

WARM, RELOADS, EACH = 200, 1_000, 100
MOST_BYTES = 1_024
LIMITS = PredictorLimits(prediction_cache=100, feature_cache_ms=1.0)
MEASURE = "import sys; from tests.nightly.reliability.test_reload_memory import measure; measure(sys.argv[1])"
# Allocators that take a megabyte at a time would hide what a reload leaves behind, or make it up.
ALLOCATOR = {"PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


def resident_bytes() -> int:
    """Return the memory that the process holds, after giving back what it does not need."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(repo: str) -> None:
    """Say the resident bytes after each hundred reloads; for a process of its own."""
    with opened(Path(repo)) as place:
        sys.stdout.write(json.dumps(asyncio.run(reload(place))))


async def reload(place: Sandbox) -> list[int]:
    """Swap two versions to and fro, and ask each; return the resident bytes after each hundred reloads."""
    reader, metrics, shown = RedisReader(place.project.redis_url), Metrics(), OipModels()
    models = ModelTable(
        repo=place.repo,
        state=ProjectState(place.state),
        store=place.project.store,
        online=reader,
        metrics=metrics,
        keep=1,
    )
    await models.load()
    predictor = Predictor(online=reader, clock=place.project.clock, log=None, metrics=metrics, limits=LIMITS)
    aliases, seen = place.project.store.aliases, []
    for n in range(1, RELOADS + 1):
        holder = aliases.get(MODEL, CHAMPION)
        to = "000002" if holder == "000001" else "000001"
        aliases.move(MODEL, CHAMPION, expect=holder, to=to, reason="soak", now_us=n)
        assert await models.refresh() == [MODEL]
        model = models.get(MODEL)
        assert (model.version, models.open_versions(MODEL)) == (to, [to])
        shown.get(model)
        for options in (None, Options(extras=("contributions", "leaves"))):
            assert (await predictor.predict(model, ask(3), options)).model is model
        metrics.requests(model.name, model.version, "request").inc()
        metrics.render()
        del model
        if n % EACH == 0:
            seen.append(resident_bytes())
    await predictor.close()
    await reader.close()
    return seen


def test_a_reload_leaves_nothing_behind(tmp_path: Path) -> None:
    make_project(tmp_path / "p")
    with opened(tmp_path / "p") as place:
        spec = replace(place.project.applied.model(MODEL), rounds=20)
        train(place.project.training_set(MODEL), spec, place.project.store, threads=1, now_us=1)
    said = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "p")],
        cwd=ROOT,
        env={**os.environ, **ALLOCATOR},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    seen = json.loads(said.splitlines()[-1])
    grown = (seen[-1] - seen[WARM // EACH - 1]) / (RELOADS - WARM)
    assert grown < MOST_BYTES, (grown, seen)
