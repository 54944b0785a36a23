"""The sample data of new projects: made up, the same at any hour of any day.

All times count from the last midnight (UTC), and labels become known at midnights only: what a project trains, and so
every number of its first tour, does not depend on the hour at which it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.operations.sample.churn import churn_tables
from skewless.operations.sample.columns import DAY
from skewless.operations.sample.delay import delay_tables
from skewless.operations.sample.fraud import fraud_tables

_TABLES: Mapping[str, Callable[[int], dict[str, pa.Table]]] = {
    "fraud": fraud_tables,
    "delay": delay_tables,
    "churn": churn_tables,
}


def write_sample(template: str, folder: Path, now_us: int) -> dict[str, int]:
    """Write the tables of a template, which end before the last midnight; return rows by file."""
    tables = _TABLES[template](now_us // DAY * DAY) if template in _TABLES else {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / name)
    return {name: table.num_rows for name, table in tables.items()}
