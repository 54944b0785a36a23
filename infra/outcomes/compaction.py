"""Merges the small files of the outcome log; a kill at any point neither loses nor duplicates a row."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.infra.log.inventory import Inventory
from skewless.infra.outcomes.writer import FOLDER, SCHEMA, store
from skewless.infra.storage.durable import hold_lock
from skewless.infra.storage.project_state import ProjectState

_LEAST_FILES = 2
_TIME_DIGITS = 20
_MAX_ROWS = 1_000_000


def compact(state: ProjectState) -> int:
    """Merge neighbouring files up to a million rows each; return by how many files the log shrank.

    The merged file is written before its sources are deleted; readers deduplicate rows that are in both.

    Raises:
        StoreError: the disk refused the write, or a file is missing or altered; nothing is lost.
    """
    folder = state / FOLDER
    with hold_lock(folder / ".compact.lock"):
        return sum(_merge(group) for group in _groups(folder))


def _groups(folder: Path) -> list[list[Path]]:
    groups: list[list[Path]] = []
    rows = 0
    for path in Inventory(folder).files():
        n = pq.read_metadata(path).num_rows
        if not groups or rows + n > _MAX_ROWS:
            groups.append([])
            rows = 0
        groups[-1].append(path)
        rows += n
    return [group for group in groups if len(group) >= _LEAST_FILES]


def _merge(paths: list[Path]) -> int:
    first = paths[0]
    inventory = Inventory(first.parent)
    # Before the merge: the checksum of a merged file would make an altered row look genuine.
    inventory.verify_all(paths)
    # A new random name of fixed length: later compactions merge merged files again, so names must not grow.
    merged = first.with_name(f"{first.name[:_TIME_DIGITS]}-{uuid.uuid4().hex[:12]}-merged.parquet")
    tables = [pq.read_table(path, schema=SCHEMA) for path in paths]
    store(merged, _deduplicate(pa.concat_tables(tables)))
    # Entries first: after a kill here the sources are only duplicates; in the other order, they would be missing files.
    inventory.remove_entries(path.name for path in paths)
    for path in paths:
        path.unlink()
    return len(paths) - 1


def _deduplicate(table: pa.Table) -> pa.Table:
    """Return the rows without duplicates; a kill may have left a merged file next to its sources."""
    numbered = table.append_column("place", pa.array(range(table.num_rows)))
    mark_first = numbered.group_by(["batch", "row"]).aggregate([("place", "min")])["place_min"]
    return table.take(mark_first.combine_chunks().sort())
