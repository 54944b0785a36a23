"""Removes files that are past their retention."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from skewless.infra.log.inventory import Inventory
from skewless.infra.storage.durable import disk_error

_DIGITS = 20


def remove_named_before(folder: Path, before_us: int) -> int:
    """Remove files whose names begin with an earlier time, 20 digits of microseconds; return how many.

    Raises:
        StoreError: a file cannot be removed.
    """
    due = [path for path in sorted(folder.glob("*.parquet")) if _name_time_us(path) < before_us]
    Inventory(folder).remove_entries(path.name for path in due)
    return _remove_files(due)


def remove_written_before(folder: Path, before_us: int) -> int:
    """Remove files below a folder that were last written before a time, by the disk's clock; return how many.

    Raises:
        StoreError: a file cannot be removed.
    """
    return _remove_files(
        path for path in sorted(folder.glob("*/*.parquet")) if path.stat().st_mtime_ns < before_us * 1_000
    )


def _name_time_us(path: Path) -> int:
    first = path.name[:_DIGITS]
    return int(first) if first.isdigit() else 2**63


def _remove_files(paths: Iterable[Path]) -> int:
    n = 0
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(path, error) from error
        n += 1
    return n
