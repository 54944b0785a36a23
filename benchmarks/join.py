"""The point-in-time join against pandas and a hand-written ASOF join of the same rows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.result import Result, in_turn
from infra.log.accepted import CREATED, EVENT, INGEST, RAW, REJECT, RUN, TOMBSTONE, AcceptedLog
from infra.offline.as_of import TIME
from infra.offline.engine import connect
from infra.offline.views import OfflineViews
from skewless.dtypes import DType
from skewless.plan import Column, Source, View

ROWS, ASKED, KEYS = 2_000_000, 200_000, 2_000
VIEW = View(
    name="stats",
    keys=(Column(name="id", dtype=DType.INT64),),
    features=tuple(Column(name=f"f{i}", dtype=DType.FLOAT64) for i in range(10)),
    source=Source(path="-", event_column="event_time", columns={}),
    ttl_us=0,
    delay_us=0,
    freshness_us=0,
)


def run() -> list[Result]:
    """Join 200 k entity rows with 2 M feature rows of 1,000 per key."""
    rng = np.random.default_rng(7)
    history = _history(rng)
    asked = pa.table(
        {"id": rng.integers(0, KEYS, ASKED), TIME: np.sort(rng.integers(10**9, 10**12, ASKED).astype(np.int64))}
    )
    with tempfile.TemporaryDirectory() as folder:
        log = AcceptedLog(Path(folder) / "log", VIEW.partition)
        log.append(history)
        connection = connect(Path(folder) / "spill", memory_limit="4GB")
        views = OfflineViews(Path(folder), connection)
        hand = (
            "SELECT h.* FROM asked e ASOF LEFT JOIN (SELECT * FROM read_parquet(?)) h"
            f" ON e.id = h.id AND e.{TIME} >= h.{EVENT} ORDER BY e.{TIME}, e.id"
        )
        connection.register("asked", asked)
        left, right = asked.to_pandas(), _frame(history)

        def ours() -> np.ndarray:
            return views.read_view(VIEW, asked, "event_time").values["f0"]

        def by_hand() -> object:
            return connection.sql(hand, params=[log.files()]).to_arrow_table()

        def by_pandas() -> np.ndarray:
            merged = pd.merge_asof(left, right, left_on=TIME, right_on=EVENT, by="id")
            return merged["f0"].fillna(0).to_numpy()

        assert np.array_equal(ours(), by_pandas())
        seconds, ratio = in_turn(ours, by_hand)
        results = [
            Result(name="join 200 k x 2 M", value=seconds, unit="s", against="ASOF by hand", ratio=ratio, target=1.3)
        ]
        seconds, ratio = in_turn(ours, by_pandas, runs=3)
        results.append(
            Result(
                name="join 200 k x 2 M",
                value=seconds,
                unit="s",
                against="pandas.merge_asof in memory",
                ratio=ratio,
            )
        )
        connection.close()
        return results


def _history(rng: np.random.Generator) -> pa.Table:
    columns = {
        "id": rng.integers(0, KEYS, ROWS),
        **{f"f{i}": rng.normal(size=ROWS) for i in range(10)},
        EVENT: np.sort(rng.choice(10**12, ROWS, replace=False).astype(np.int64)),
        CREATED: pa.nulls(ROWS, pa.int64()),
        TOMBSTONE: np.zeros(ROWS, dtype=np.bool_),
        REJECT: pa.nulls(ROWS, pa.string()),
        RAW: pa.nulls(ROWS, pa.string()),
        INGEST: np.zeros(ROWS, dtype=np.int64),
        RUN: np.ones(ROWS, dtype=np.int64),
    }
    return pa.table(columns)


def _frame(history: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = history.select(["id", EVENT, *(f"f{i}" for i in range(10))]).to_pandas()
    return frame
