"""The point-in-time join on Ray and Spark, ours and Feast's, against ``pandas.merge_asof`` row by row.

It needs the engines: ``make setup-ray setup-spark``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from benchmarks import frame_entrants as entrants
from benchmarks.contestant import Contestant, ContestantError
from benchmarks.histories import ASKED, History, pieces, write_log
from benchmarks.meter import Report
from benchmarks.programs import run_feast
from benchmarks.repo import Table, write_repo
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.stored import plan_of

_MB = 1e6
_RAY = """offline_store:
  type: ray
  storage_path: {folder}/storage
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
        table = Table(name="deep", n_entities=scaled(2_000, least=20), per_entity=per_entity, n_features=10)
        results += _compared(History(tables=[table], entity_rows=scaled(100_000, least=1_000)))
    return results
