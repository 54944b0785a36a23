"""An independent baseline: ``pandas.merge_asof`` and LightGBM; shares no code with the project or the library."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd

HOUR = pd.Timedelta(hours=1)
DAY = pd.Timedelta(days=1)
TABLES = {
    "weather": (["origin"], HOUR, 6 * HOUR),
    "carrier_days": (["carrier"], 2 * HOUR, 35 * DAY),
    "route_days": (["origin", "dest"], 2 * HOUR, 35 * DAY),
    "plane_days": (["tailnum"], 2 * HOUR, 35 * DAY),
    "planes": (["tailnum"], 0 * HOUR, 10_000 * DAY),
}
PARAMS = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 63,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.6,
    "lambda_l2": 1.0,
    "num_threads": 2,
    "seed": 7,
    "deterministic": True,
    "verbosity": -1,
}


def baseline_auc(data: Path, tables: tuple[str, ...] = tuple(TABLES), rounds: int = 150) -> float:
    """Return the area under the ROC curve on the last two weeks.

    Args:
        data: the folder that the loader wrote.
        tables: the tables whose columns are features, beside those of the request.
        rounds: number of boosting rounds.
    """
    frame = training_frame(data, tables)
    test_start = frame["t"].max() - 14 * DAY
    train = frame[(frame["t"] < test_start - DAY) & (frame["known_at"] < test_start)]
    test = frame[frame["t"] >= test_start]
    features = [name for name in frame.columns.astype(str) if "__" in name]
    dataset = lightgbm.Dataset(train[features], train["late"])
    booster = lightgbm.train(PARAMS, dataset, num_boost_round=rounds)
    return auc(test["late"].to_numpy(), np.asarray(booster.predict(test[features])))


def training_frame(data: Path, tables: tuple[str, ...]) -> pd.DataFrame:
    """Return the labelled flights with ``t``, an hour before departure, and what was published by then."""
    frame = pd.read_parquet(data / "flights").dropna(subset=["late"])
    frame = frame.assign(t=frame["sched_dep"] - HOUR, late=frame["late"].astype(int)).sort_values("t", kind="stable")
    frame = with_clock(frame)
    for name in tables:
        frame = with_table(frame, pd.read_parquet(data / name), name)
    return frame


def with_clock(frame: pd.DataFrame) -> pd.DataFrame:
    """Add what the schedule says."""
    local = frame["sched_dep_local"] // 100 * 60 + frame["sched_dep_local"] % 100
    arrival = frame["sched_arr_local"] // 100 * 60 + frame["sched_arr_local"] % 100
    return frame.assign(
        flight__hour=local // 60,
        flight__minute=local,
        # Five hours back is the same day as in New York, but for an hour after midnight without flights.
        flight__weekday=(frame["sched_dep"] - 5 * HOUR).dt.dayofweek,
        flight__arrival=arrival,
        flight__planned=(arrival - local) % 1440,
        flight__miles=frame["distance"],
    )


def with_table(frame: pd.DataFrame, table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Add the newest row published by ``t`` and not older than allowed."""
    keys, delay, age = TABLES[name]
    columns = [column for column in table.columns.astype(str) if column not in {*keys, "event_time"}]
    text = {column: "category" for column in table.select_dtypes(object) if column not in keys}
    published = table.astype(text).assign(published=table["event_time"] + delay).sort_values("published")
    published = published.dropna(subset=keys).rename(columns={column: f"{name}__{column}" for column in columns})
    joined = pd.merge_asof(frame, published, left_on="t", right_on="published", by=keys)
    expired = (joined["t"] - joined["event_time"] > age).to_numpy()
    joined.loc[expired, [f"{name}__{column}" for column in columns]] = np.nan
    return joined.drop(columns=["event_time", "published"])


def auc(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> float:
    """Return the chance that a late flight scores above one that was not, ties counting half."""
    ranks = pd.Series(scores).rank().to_numpy()
    late = int(labels.sum())
    return float((ranks[labels == 1].sum() - late * (late + 1) / 2) / (late * (len(labels) - late)))
