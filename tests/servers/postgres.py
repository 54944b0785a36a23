"""Addresses and states of databases that a test has opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.infra.platform.storage import project_state
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.project_state import ProjectState

_SOAK = pytest.mark.soak
# Facts that one database proves: their contract is tested with both, and a server sees connections, not processes.
ON_SQLITE, ON_POSTGRES = (
    pytest.mark.parametrize("project_database", [one, pytest.param(other, marks=_SOAK)], indirect=True)
    for one, other in (("sqlite", "postgres"), ("postgres", "sqlite"))
)


def address_of(database: Database) -> str:
    """Return the address of an open database, for other processes."""
    return next(url for url, one in project_state._databases.items() if one is database)


def state_of(database: Database, folder: Path = Path("/nowhere")) -> ProjectState:
    """Return a project's state in an open database."""
    return ProjectState(folder, address_of(database))
