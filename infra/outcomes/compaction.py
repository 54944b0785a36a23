"""Merges the small files of the outcome log; a kill at any point loses nothing and counts nothing twice."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.infra.log.inventory import Inventory
from skewless.infra.outcomes.writer import FOLDER, SCHEMA, store
from skewless.infra.storage.durable import hold_lock

_FEWEST = 2
_TIME_DIGITS = 20
_MOST_ROWS = 1_000_000


def compact(state: Path) -> int:
    """Merge neighbouring files up to a million rows each; return how many files are gone.

    The merged file is in its place before the others go; rows that stand in both are one for readers.

    Raises:
        StoreError: the disk refused, or a file is missing or altered; nothing is lost.
    """
    folder = state / FOLDER
    with hold_lock(folder / ".compact.lock"):
        return sum(_merge(group) for group in _groups(folder))


def _groups(folder: Path) -> list[list[Path]]:
    groups: list[list[Path]] = []
    rows = 0
    for path in Inventory(folder).files():
        n = pq.read_metadata(path).num_rows
        if not groups or rows + n > _MOST_ROWS:
            groups.append([])
            rows = 0
        groups[-1].append(path)
        rows += n
    return [group for group in groups if len(group) >= _FEWEST]


def _merge(paths: list[Path]) -> int:
    first = paths[0]
    inventory = Inventory(first.parent)
    inventory.verify_all(paths)
    # A name of its own, as long as any: a merged file is merged again, night after night.
    merged = first.with_name(f"{first.name[:_TIME_DIGITS]}-{uuid.uuid4().hex[:12]}-merged.parquet")
    tables = [pq.read_table(path, schema=SCHEMA) for path in paths]
    store(merged, _distinct(pa.concat_tables(tables)))
    inventory.remove_entries(path.name for path in paths)
    for path in paths:
        path.unlink()
    return len(paths) - 1


def _distinct(table: pa.Table) -> pa.Table:
    """Return each row once; a kill may have left a merged file beside what it was made of."""
    places = table.append_column("place", pa.array(range(table.num_rows)))
    kept = places.group_by(["batch", "row"]).aggregate([("place", "min")])["place_min"]
    return table.take(kept.combine_chunks().sort())
