"""The contestant of growth: loads, joins and reads one project, and holds the online values against the log."""

# ruff: noqa: PLC0415 - a contestant loads its own libraries, and nobody else's

from __future__ import annotations

import numpy as np
import pyarrow as pa

from benchmarks.contestant import ContestantError
from benchmarks.meter import Meter
from benchmarks.repo import HOUR_US, START_US
from benchmarks.scale import rounds

LOAD, JOIN, READ = "materialise", "join", "online read"
_ASKED = 100_000
_READ = 100
_LAPS, _TIMES = 3, 30


def everything(meter: Meter, *, repo: str, url: str, n_entities: int, hours: int, asked: int = _ASKED) -> str:
    """Materialise, join ``asked`` entity rows in event time, and read 100 entities online."""
    from skewless import Project
    from skewless.infra.reads.offline.as_of import TIME

    rng, times = np.random.default_rng(3), rounds(_TIMES)
    end = START_US + hours * HOUR_US
    rows = pa.table({"entity_id": rng.integers(0, n_entities, asked), TIME: rng.integers(START_US, end, asked)})
    columns = {"entity_id": rng.integers(0, n_entities, _READ).tolist()}
    with Project(repo, redis_url=url) as project:
        project.materializer  # noqa: B018 - opens database and store before the clock runs
        with meter.lap(LOAD):
            project.materialize(check=False)
        plan = project.applied.plan.select_service("all")
        for _ in range(rounds(_LAPS)):
            with meter.lap(JOIN):
                project.views.read(plan, rows, "event_time")
        project.online_features("all", columns)
        for _ in range(rounds(_LAPS)):
            with meter.lap(READ, times=times):
                for _ in range(times):
                    online = project.online_features("all", columns)
        late = pa.table({"entity_id": columns["entity_id"], TIME: np.full(_READ, end)})
        (view,) = plan.views
        offline = project.views.read_view(view, late, "event_time")
        for place, feature in enumerate(view.features):
            known = np.where(offline.nulls[feature.name], np.nan, offline.values[feature.name])
            if not np.array_equal(known.astype(np.float64), online.matrix[:, place], equal_nan=True):
                raise ContestantError(f"online and offline differ in {feature.name}")
    return "equal"
