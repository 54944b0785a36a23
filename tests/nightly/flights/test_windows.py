"""Windows over the imported events, held against pandas over the flights themselves."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless import Project
from skewless.contract.clock import ManualClock, to_us
from skewless.contract.spec import TimeMode
from skewless.contract.windows.view import WindowView
from skewless.infra.ingest.streams import importing
from skewless.infra.ingest.streams.importing import Importer
from skewless.infra.reads.offline.as_of import TIME

from .conftest import NOW, REPO, Flights

# The first weeks of the year: more than the importer takes at once.
EVENTS, AT_ONCE = 30_000, 25_000
COLUMNS = {"out": ("departures", "dep_delay", "departed_at"), "in": ("arrivals", "arr_delay", "landed_at")}


@pytest.fixture(scope="module")
def project(flights: Flights, tmp_path_factory: pytest.TempPathFactory) -> Project:
    repo = tmp_path_factory.mktemp("windows") / "feature_repo"
    shutil.copytree(REPO, repo, ignore=shutil.ignore_patterns("data", ".skewless", "__pycache__"))
    (repo / "data").mkdir()
    for folder in flights.data.iterdir():
        (repo / "data" / folder.name).symlink_to(folder)
    for name, time in (("departures", "departed_at"), ("arrivals", "landed_at")):
        events = pq.read_table(flights.data / name / "history")
        assert len(events) == flights.report.events[name].past
        (repo / "data" / name).unlink()
        (repo / "data" / name / "history").mkdir(parents=True)
        pq.write_table(events.sort_by(time).slice(0, EVENTS), repo / "data" / name / "history/all.parquet")
    project = Project(repo)
    project.__dict__ |= {"clock": ManualClock(to_us(NOW)), "redis_url": "redis://127.0.0.1:1"}
    project.apply()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "BATCH_ROWS", AT_ONCE)
        for source in project.streams.sources():
            done = Importer(streams=project.streams, source=source, repo=project.repo).run()
            assert (done.accepted, done.rejected) == (EVENTS, 0)
    return project


@pytest.mark.parametrize("name", ["carrier_out", "airport_out", "plane_out", "airport_in", "route_in", "plane_in"])
def test_windows_hold_what_pandas_finds(project: Project, flights: Flights, name: str) -> None:
    view = project.applied.plan.window(name)
    source, delay, moment = COLUMNS[name.partition("_")[2]]
    events = pd.read_parquet(project.repo / "data" / source / "history")
    rows = asked(flights, view)
    read = project.views.read_window(view, rows, "knowledge")
    assert read.block is not None
    of_key = events.groupby([key.name for key in view.keys]).indices
    for i, row in enumerate(rows.to_pylist()):
        found_key = tuple(row[key.name] for key in view.keys)
        mine = events.iloc[of_key.get(found_key if len(found_key) > 1 else found_key[0], [])]
        past = mine[mine[moment] < pd.Timestamp(row[TIME], unit="us", tz="UTC")]
        ts = past[moment].astype("datetime64[us, UTC]").astype("int64")
        for feature, aggregate in enumerate(view.aggregates):
            edge = (row[TIME] - aggregate.window_us) // aggregate.hop_us * aggregate.hop_us
            found = by_pandas(past.loc[ts >= edge, delay], aggregate.name)
            np.testing.assert_allclose(read.block[i, feature], found, rtol=1e-12, err_msg=f"{aggregate.name} {row}")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["knowledge", pytest.param("event_time", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "engine", ["processes", pytest.param("ray", marks=pytest.mark.soak), pytest.param("spark", marks=pytest.mark.soak)]
)
def test_two_workers_find_the_bits_of_one_process(
    project: Project,
    flights: Flights,
    mode: TimeMode,
    engine: Literal["processes", "ray", "spark"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if engine != "processes" and find_spec("pyspark" if engine == "spark" else engine) is None:
        pytest.skip(f"needs {engine}: make engines")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO.parent), os.environ.get("PYTHONPATH", "")]))
    plan = replace(project.applied.plan, views=())
    # In make test few rows and one number: test_engine_reads.py has the other numbers, on rows of chance.
    is_short = (engine, mode) == ("processes", "knowledge")
    rows = asked(flights, *plan.windows, n=4_000 if is_short else 20_000)
    alone = project.views.read(plan, rows, mode)
    with Project(project.repo, engine=engine, engine_rows=0, engine_workers=2) as parallel:
        for buckets in (64,) if is_short else (1, 7, 64, 4_096):
            found = parallel.views.read(replace(plan, buckets=buckets), rows, mode)
            for name, read in alone.items():
                for own, other in ((read.block, found[name].block), (read.mask, found[name].mask)):
                    assert own is not None
                    assert other is not None
                    assert own.tobytes() == other.tobytes(), (name, buckets)


def asked(flights: Flights, *views: WindowView, n: int = 60) -> pa.Table:
    """Return flights among the imported events, as they are asked."""
    table = flights.tables["flights"].dropna(subset=["tailnum"]).iloc[5_000:28_000].sample(n, random_state=4)
    moments = (table["sched_dep"] - pd.Timedelta(hours=1)).astype("datetime64[us, UTC]").astype("int64")
    keys = {key.name: pa.array(table[key.name].tolist()) for view in views for key in view.keys}
    return pa.table({**keys, TIME: pa.array(moments.to_numpy())})


def by_pandas(minutes: pd.Series[float], feature: str) -> float:
    """Return a feature of the delays in a window, in the order of their times."""
    function = feature.partition("_")[0]
    if function == "flights":
        return float(len(minutes))
    if minutes.empty or (function == "std" and len(minutes) == 1):
        return float("nan")
    if function == "late":
        return float((minutes > 15).mean())
    return float(minutes.iloc[-1] if function == "last" else getattr(minutes, function)())


def test_a_copy_of_the_repo_knows_its_streams(project: Project) -> None:
    assert [source.name for source in project.applied.plan.sources] == ["departures", "arrivals"]
    assert not Path(project.state / "redis").exists()
