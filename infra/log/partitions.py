"""Which log partitions the events of a source lie in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from skewless.infra.log.event_log import EventLog
from skewless.infra.log.inventory import noted_partitions

IMPORTED = "/import/"  # in the names of partitions into which no stream flows


def source_folder(log_root: Path, source: str) -> Path:
    """Return the folder of a source's logs: a folder for each epoch, in it one for each partition."""
    return log_root / "events" / source


def log_partitions(log_root: Path, source: str) -> list[str]:
    """Return the names of the log partitions of a source, sorted."""
    folder = source_folder(log_root, source)
    found = {str(path.relative_to(log_root)) for path in folder.glob("*/*") if path.is_dir()}
    # One whose folder is gone is missing, not over.
    return sorted(found.union(noted_partitions(log_root, str(folder.relative_to(log_root)))))


def log_ends(log_root: Path, source: str) -> Mapping[str, int]:
    """Return the last position of each log partition of a source; -1: it is empty."""
    return {name: EventLog(log_root, name).next_seq() - 1 for name in log_partitions(log_root, source)}
