"""Lists the log partitions that hold the events of a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from skewless.infra.log.event_log import EventLog
from skewless.infra.log.inventory import list_recorded_partitions

IMPORTED = "/import/"  # part of the names of partitions with imported events


def source_folder(log_root: Path, source: str) -> Path:
    """Return the folder of a source's logs: one folder per epoch, with one folder per partition."""
    return log_root / "events" / source


def log_partitions(log_root: Path, source: str) -> list[str]:
    """Return the names of the log partitions of a source, sorted."""
    folder = source_folder(log_root, source)
    names = {str(path.relative_to(log_root)) for path in folder.glob("*/*") if path.is_dir()}
    # The inventory still lists a partition whose folder was lost: it is missing, not finished.
    return sorted(names.union(list_recorded_partitions(log_root, str(folder.relative_to(log_root)))))


def log_ends(log_root: Path, source: str) -> Mapping[str, int]:
    """Return the last position of each log partition of a source; -1 if it is empty."""
    return {name: EventLog(log_root, name).next_seq() - 1 for name in log_partitions(log_root, source)}
