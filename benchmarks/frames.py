"""The point-in-time join on Ray and Spark, ours and Feast's, against ``pandas.merge_asof`` row by row.

It needs the engines: ``make setup-ray setup-spark``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from benchmarks import frame_entrants as entrants
from benchmarks.contestant import Contestant, ContestantError
from benchmarks.histories import ASKED, History, pieces, write_log
from benchmarks.programs import run_feast
from benchmarks.repo import ViewTable, write_repo
from benchmarks.result import Result
from benchmarks.scale import scale, scaled
from benchmarks.stored import plan_of

ALONE = "ours on one machine"
_MB = 1e6
_RAY = """offline_store:
  type: ray
  storage_path: {folder}/storage
  broadcast_join_threshold_mb: {threshold}
"""
_SPARK = """offline_store:
  type: spark
  spark_conf:
    spark.master: "local[2]"
    spark.ui.enabled: "false"
    spark.driver.host: "127.0.0.1"
    spark.sql.session.timeZone: "UTC"
"""


def run() -> list[Result]:
    """Join 100 k entity rows with 2 M rows (more than Feast's Ray store broadcasts), and with 200 k (fewer)."""
    folders = [f"{sys.prefix}-{engine}" for engine in ("ray", "spark")]
    if missing := [folder for folder in folders if not Path(folder).is_dir()]:
        raise ContestantError(f"{', '.join(missing)} is missing. Fix: make setup-ray setup-spark")
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, str(Path(__file__).parents[1])])
    results = []
    for per_entity in (1_000, 100):
        table = ViewTable(name="deep", n_entities=scaled(2_000, least=20), per_entity=per_entity, n_features=10)
        results += _compared(History(tables=[table], entity_rows=scaled(100_000, least=1_000)))
    return results


def _compared(history: History) -> list[Result]:
    """Return the results of one history: seconds, memory, and rows that are wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, asked = folder / "data", folder / "data" / ASKED
        history.write(data)
        own = history.repo(folder / "own", data, "skewless")
        (table,) = history.tables
        write_log(plan_of(own).views, {table.name: pieces(data, table)}, own / ".skewless")
        contestants = [
            Contestant(name=ALONE, entrant=entrants.ours_alone, arguments={"repo": str(own)}),
            Contestant(name="ours on Ray", entrant=entrants.ours_ray, arguments={"repo": str(own)}),
            Contestant(name="ours on Spark", entrant=entrants.ours_spark, arguments={"repo": str(own)}),
        ]
        for engine, text in (
            ("Ray", _RAY.format(folder=folder, threshold=max(1, int(100 * scale())))),
            ("Spark", _SPARK),
        ):
            repo = _write_feast(history, folder / engine, data, engine, text)
            arguments = {"repo": str(repo)}
            contestants.append(
                Contestant(name=f"Feast on {engine}", entrant=entrants.feast_engine, arguments=arguments)
            )
        expected = _merge_asof(data / f"{table.name}.parquet", asked, list(table.features))
        reports, wrong = {}, {}
        for contestant in contestants:
            out = folder / contestant.name.replace(" ", "-")
            arguments = {**contestant.arguments, "asked": str(asked), "out": str(out)}
            try:
                reports[contestant.name] = replace(contestant, arguments=arguments).run()
            except ContestantError as error:  # a peer that fails is a result, too
                print(error, flush=True)
                continue
            wrong[contestant.name] = _count_wrong(out, expected, table.name)
    rows = f"{history.entity_rows:,} x {table.n_entities * table.per_entity:,} rows"
    return [
        Result(name=f"frames: {rows}: {name}, {what}", value=value, unit=unit, against="-", ratio=None)
        for name, report in reports.items()
        for what, value, unit in (
            ("time", report.seconds(), "s"),
            ("memory of all processes", report.facts[entrants.PEAK] / _MB, "MB"),
            ("rows equal to those of merge_asof", history.entity_rows - wrong[name], "rows"),
        )
    ]


def _write_feast(history: History, folder: Path, data: Path, engine: str, text: str) -> Path:
    """Write a repo over the files, for Feast's offline store of an engine, and apply it."""
    write_repo(folder, history.tables, data)
    settings, definitions = folder / "feature_store.yaml", folder / "definitions.py"
    settings.write_text(settings.read_text().replace("offline_store:\n  type: duckdb\n", text))
    if engine == "Spark":
        module = "feast.infra.offline_stores.contrib.spark_offline_store.spark_source"
        source = definitions.read_text().replace(
            "FileSource(path=", 'SparkSource(name="rows", file_format="parquet", path='
        )
        definitions.write_text(f"from {module} import SparkSource\n{source}")
    run_feast(folder, "apply")
    return folder


def _merge_asof(file: Path, asked: Path, features: list[str]) -> pd.DataFrame:
    """Return the features of each entity row, in order, as pandas finds them."""
    history = pq.read_table(file).to_pandas().sort_values("event_time", kind="stable")
    rows = pq.read_table(asked).to_pandas().sort_values("event_timestamp", kind="stable")
    joined = pd.merge_asof(rows, history, left_on="event_timestamp", right_on="event_time", by="entity_id")
    return joined.sort_values("row")[features].reset_index(drop=True)


def _count_wrong(out: Path, expected: pd.DataFrame, view: str) -> int:
    """Return the number of entity rows that are lost, doubled, or have another value of any feature."""
    files = sorted(out.rglob("*.parquet")) or [out]
    actual = (
        pd.concat([pq.read_table(file).to_pandas() for file in files])
        .drop_duplicates("row", keep=False)
        .set_index("row")
    )
    actual = actual.rename(columns={f"{view}__{name}": name for name in expected.columns})
    actual = actual.reindex(range(len(expected)))
    different = np.zeros(len(expected), dtype=np.bool_)
    for name in expected.columns:
        left, right = (frame[name].to_numpy(dtype=np.float64) for frame in (actual, expected))
        different |= ~((left == right) | (np.isnan(left) & np.isnan(right)))
    return int(different.sum())
