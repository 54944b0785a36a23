"""Feast itself reads, applies and plans the project."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from definitions import flight_delay, flight_delay_live
from feast import FeatureStore
from feast.repo_operations import get_repo_files, parse_repo

from .conftest import REPO, Flights

VIEWS = ["carrier_days", "plane_days", "plane_facts", "route_days", "weather"]
WINDOWS = [f"{key}_{way}" for key in ("airport", "carrier", "plane", "route") for way in ("in", "out")]


@pytest.fixture
def repo(tmp_path: Path, flights: Flights, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repo"
    shutil.copytree(REPO, folder, ignore=shutil.ignore_patterns("data", ".skewless", "__pycache__"))
    (folder / "data").symlink_to(flights.data)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Stream feature views are experimental features:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Downcasting object dtype arrays:FutureWarning")
def test_feast_applies_the_project_and_joins_it(repo: Path, flights: Flights) -> None:
    found = parse_repo(repo)
    assert sorted(view.name for view in found.feature_views) == VIEWS
    assert sorted(view.name for view in found.stream_feature_views) == WINDOWS
    store = FeatureStore(repo_path=str(repo))
    objects: list[Any] = [*found.entities, *found.data_sources, *found.feature_views]
    store.apply([*objects, *found.stream_feature_views, *found.on_demand_feature_views, *found.feature_services])
    assert (repo / ".skewless" / "registry.db").is_file()
    assert sorted(view.name for view in store.list_feature_views()) == VIEWS

    # Feast's own file store answers equal keys at one time with one row.
    rows = flights.tables["flights"].iloc[300_000:300_040].drop_duplicates(["origin", "sched_dep"])
    request = ["sched_dep", "sched_dep_local", "sched_arr_local", "distance"]
    asked = rows[["origin", *request]].assign(event_timestamp=rows["sched_dep"] - pd.Timedelta(hours=1))
    references = ["weather:temp", "departure:weekday", "departure:dew_spread"]
    answer = store.get_historical_features(entity_df=asked, features=references).to_df()
    assert len(answer) == len(asked) > 20
    assert answer["weekday"].between(0, 6).all()
    assert answer["dew_spread"].notna().all()


def test_feast_imports_the_definitions_alone() -> None:
    assert [path.name for path in get_repo_files(REPO)] == ["definitions.py"]


def test_the_services_list_every_view_once() -> None:
    names = [projection.name for projection in flight_delay.feature_view_projections]
    assert sorted(names) == sorted([*VIEWS, "departure"])
    live = [projection.name for projection in flight_delay_live.feature_view_projections]
    assert sorted(live) == sorted([*VIEWS, "departure", *WINDOWS])
