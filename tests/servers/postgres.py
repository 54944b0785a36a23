"""Addresses and states of databases that a test has opened."""

from __future__ import annotations

from pathlib import Path

from skewless.infra.storage import project_state
from skewless.infra.storage.database import Database
from skewless.infra.storage.project_state import ProjectState


def address_of(database: Database) -> str:
    """Return the address of an open database, for other processes."""
    return next(url for url, one in project_state._databases.items() if one is database)


def state_of(database: Database, folder: Path = Path("/nowhere")) -> ProjectState:
    """Return a project's state in an open database."""
    return ProjectState(folder, address_of(database))
