"""A project, and changes of which some are inputs of its compilation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.worlds.edits import edit
from tests.worlds.payments_data import TEMPLATE, write_sample

INPUTS = """
import json
import os

import company
from parts.days import TTL_DAYS

LIMITS = json.loads((Path(__file__).parent / "limits.json").read_text())
DAYS = int(os.environ.get("PROJECT_DAYS", "30"))
more = FeatureView(
    name="more",
    entities=[shop],
    ttl=timedelta(days=DAYS + TTL_DAYS + LIMITS["days"] + company.DAYS),
    schema=[Field(name="shop_id", dtype=String), Field(name="refund_share", dtype=Float64)],
    source=shop_risk.batch_source,
)
"""


@dataclass(frozen=True)
class Surroundings:
    """A project, and a module outside of it."""

    repo: Path
    outside: Path
    patch: pytest.MonkeyPatch

    def rewrite(self, name: str, old: str, new: str, *, keep_time: bool = False) -> None:
        path = self.repo / name
        stat = path.stat()
        edit(path.parent, old, new, file=path.name)
        if keep_time:
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def table(self, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
        path = self.repo / "data" / name
        rows = change(pq.read_table(path))
        path.unlink()
        pq.write_table(rows, path)


def cast(column: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index(column)
        return rows.set_column(at, column, rows[column].cast(kind, safe=False))

    return change


# What each change is, and whether the plan may be reused after it.
CHANGES: dict[str, tuple[Callable[[Surroundings], object], bool]] = {
    "nothing": (lambda _: None, True),
    "newer time": (lambda p: os.utime(p.repo / "definitions.py"), True),
    "more rows": (
        lambda p: p.table("card_days.parquet", lambda rows: pa.concat_tables([rows, rows.slice(0, 3)])),
        True,
    ),
    "other variable": (lambda p: p.patch.setenv("UNRELATED", "1"), True),
    "expectations": (lambda p: (p.repo / "expectations.py").write_text("SUITES = {}\n"), True),
    "definitions": (lambda p: p.rewrite("definitions.py", "timedelta(days=30)", "timedelta(days=3)"), False),
    "same size and time": (
        lambda p: p.rewrite("definitions.py", '"skewless.delay": "1h"', '"skewless.delay": "2h"', keep_time=True),
        False,
    ),
    "transform": (lambda p: p.rewrite("transforms.py", "3_600_000_000 % 24", "3_600_000_000 % 12"), False),
    "models": (lambda p: p.rewrite("models.py", "rounds=50", "rounds=60"), False),
    "no models": (lambda p: (p.repo / "models.py").unlink(), False),
    "config": (lambda p: p.rewrite("feature_store.yaml", "project: payments", "project: other"), False),
    "opened file": (lambda p: (p.repo / "limits.json").write_text('{"days": 5}'), False),
    "no opened file": (lambda p: (p.repo / "limits.json").unlink(), False),
    "variable": (lambda p: p.patch.setenv("PROJECT_DAYS", "7"), False),
    "no variable": (lambda p: p.patch.delenv("PROJECT_DAYS"), False),
    "package": (lambda p: (p.repo / "parts" / "days.py").write_text("TTL_DAYS = 9\n"), False),
    "module outside": (lambda p: (p.outside / "company.py").write_text("DAYS = 3\n"), False),
    "module that hides another": (lambda p: (p.repo / "company.py").write_text("DAYS = 4\n"), False),
    "package that hides a module": (lambda p: _hide(p.repo / "transforms"), False),
    "column type": (lambda p: p.table("card_days.parquet", cast("payments_7d", pa.float32())), False),
    "refused type": (lambda p: p.table("shop_risk.parquet", cast("refund_share", pa.string())), False),
    "column": (lambda p: p.table("card_days.parquet", lambda rows: rows.append_column("x", rows["country"])), False),
    "no source": (lambda p: (p.repo / "data" / "shop_risk.parquet").unlink(), False),
    "label type": (lambda p: p.table("payments.parquet", cast("fraud", pa.int32())), False),
    "registry": (lambda p: (p.repo / ".skewless" / "registry.db").write_bytes(b""), False),
    "no registry": (lambda p: (p.repo / ".skewless" / "registry.db").unlink(), False),
    "syntax": (lambda p: (p.repo / "models.py").write_text("MODELS = ["), False),
}


def _hide(folder: Path) -> None:
    folder.mkdir()
    shutil.copy(f"{folder}.py", folder / "__init__.py")


def write_project(place: Path, now_us: int) -> None:
    """Write the project, and beside it the folder with the module."""
    repo, outside = place / "repo", place / "outside"
    shutil.copytree(TEMPLATE, repo)
    write_sample(repo / "data", now_us)
    with (repo / "definitions.py").open("a") as file:
        file.write(INPUTS)
    (repo / "limits.json").write_text('{"days": 2}')
    (repo / "parts").mkdir()
    (repo / "parts" / "__init__.py").write_text("")
    (repo / "parts" / "days.py").write_text("TTL_DAYS = 1\n")
    outside.mkdir()
    (outside / "company.py").write_text("DAYS = 0\n")
