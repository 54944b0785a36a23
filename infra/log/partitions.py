"""Lists the log partitions that hold the events of a source."""

from __future__ import annotations

from collections.abc import Mapping

from skewless.infra.log.catalog import Catalog
from skewless.infra.platform.storage.project_state import ProjectState

IMPORTED = "/import/"  # part of the names of partitions with imported events


def source_logs(source: str) -> str:
    """Return the name below which all log partitions of a source are, each below its stream's epoch."""
    return f"events/{source}"


def log_partitions(state: ProjectState, source: str) -> list[str]:
    """Return the names of the log partitions of a source, sorted."""
    return list(log_ends(state, source))


def log_ends(state: ProjectState, source: str) -> Mapping[str, int]:
    """Return the last position of each log partition of a source, by name; -1 if it is empty."""
    return Catalog(state.database).ends(source_logs(source))
