"""Whether the database answers, asked before a page reads it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

from skewless.contract.plain_record import PlainRecord
from skewless.infra.platform.storage.database import Database
from skewless.project import Project
from skewless_control_room.inquiry import Inquiry

_WAIT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class DatabaseState(PlainRecord):
    """The database.

    Args:
        exists: False: nothing has been written yet.
        answer_ms: time of one query.
    """

    kind: str
    exists: bool
    answer_ms: float


def ask_database(project: Project) -> DatabaseState:
    """Return whether the database answers.

    Raises:
        StoreError: it does not, or not within a second.
    """
    database = project.state.database
    return _inquiry(database).ask(lambda: _ask(database))


def _ask(database: Database) -> DatabaseState:
    started = time.perf_counter()
    database.query("SELECT 1")
    return DatabaseState(
        kind="PostgreSQL" if database.is_shared else "SQLite",
        exists=database.exists(),
        answer_ms=round((time.perf_counter() - started) * 1e3, 2),
    )


@cache
def _inquiry(_: Database) -> Inquiry[DatabaseState]:
    """Return the question to a database, which the threads of all pages share."""
    return Inquiry("database", _WAIT_S)
