"""What happens in the world between the last run and the next: new rows, new definitions, another training."""

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.nightly.integration.errors.scene import Scene
from tests.worlds.command_line import done
from tests.worlds.edits import edit

_TIME = pa.timestamp("us", tz="UTC")
_HOURS = 3_600_000_000


def _append(scene: Scene, file: str, rows: pa.Table) -> None:
    path = scene.repo / file
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, rows.select(table.column_names).cast(table.schema)]), path)


def _shops(share: float, n: int) -> pa.Table:
    # Published an hour late, as the view says.
    event = [time.time_ns() // 1_000 - 2 * _HOURS + i for i in range(n)]
    shops = [f"shop-{i % 40:02d}" for i in range(n)]
    return pa.table(
        {
            "shop_id": shops,
            "event_time": pa.array(event, pa.int64()).cast(_TIME),
            "refund_share": [share + i * 1e-9 for i in range(n)],
        }
    )


def new_shop_rows(scene: Scene) -> None:
    """Publish good rows of a view, too many for a small file."""
    _append(scene, "data/shop_risk.parquet", _shops(0.5, 2_000))


def bad_shop_rows(scene: Scene) -> None:
    """Publish rows that break the suite of ``shop_risk``."""
    _append(scene, "data/shop_risk.parquet", _shops(7.5, 3))


def new_card_rows(scene: Scene) -> None:
    """Publish a good row of one card."""
    table = pq.read_table(scene.repo / "data/card_days.parquet").slice(0, 1)
    now = pa.array([time.time_ns() // 1_000], pa.int64()).cast(_TIME)
    for column in ("event_time", "created"):
        table = table.set_column(table.column_names.index(column), column, now)
    _append(scene, "data/card_days.parquet", table)


def bad_labels(scene: Scene) -> None:
    """Write a label that is neither 0 nor 1."""
    _relabel(scene, lambda labels: pc.if_else(pc.equal(labels, 1), 2, labels))


def one_class(scene: Scene) -> None:
    """Write labels of one class."""
    _relabel(scene, lambda labels: pc.multiply(labels, 0))


def never_known(scene: Scene) -> None:
    """Write label rows whose labels nobody knows yet."""
    path = scene.repo / "data/payments.parquet"
    table = pq.read_table(path)
    never = pa.nulls(table.num_rows, _TIME)
    pq.write_table(table.set_column(table.column_names.index("known_at"), "known_at", never), path)


def _relabel(scene: Scene, change: object) -> None:
    path = scene.repo / "data/payments.parquet"
    table = pq.read_table(path)
    labels = change(table["fraud"])  # type: ignore[operator]
    pq.write_table(table.set_column(table.column_names.index("fraud"), "fraud", labels), path)


def reworded(scene: Scene) -> None:
    """Change a definition, which is not applied."""
    edit(scene.repo, "timedelta(days=30)", "timedelta(days=31)")


def narrowed(scene: Scene) -> None:
    """Apply definitions without a feature that the champions use, and fill the views again."""
    edit(scene.repo, '        Field(name="country", dtype=String),\n', "")
    done("apply", "--repo", scene.repo)
    done("materialize", "--repo", scene.repo)
