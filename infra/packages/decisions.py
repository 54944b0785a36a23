"""The decisions of a model's gate about its versions, with their evidence; they are never deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skewless.infra.storage.database import Database
from skewless.infra.storage.documents import Records
from skewless.infra.storage.names import check_model_name


class Decisions:
    """The decisions about the versions of a project's models.

    Args:
        database: of the project.
    """

    def __init__(self, database: Database) -> None:
        self._records = Records(database, "decision")

    def add(self, model: str, version: str, decision: Mapping[str, Any], now_us: int) -> None:
        """Store a decision about a version.

        Args:
            decision: plain JSON values.
            now_us: the clock, UTC microseconds.

        Raises:
            StoreError: the database is unavailable; nothing was added.
        """
        self._records.add(check_model_name(model), {"version": version, "at_us": now_us, **decision})

    def read_latest_first(self, model: str) -> Iterator[dict[str, Any]]:
        """Yield the decisions about a model's versions, latest first."""
        return (dict(body) for _, body in self._records.read_latest_first(check_model_name(model)))

    def last(self, model: str, version: str) -> dict[str, Any] | None:
        """Return the last decision about a version."""
        return next((decision for decision in self.read_latest_first(model) if decision["version"] == version), None)
