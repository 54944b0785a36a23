"""The progress in the source of a view: one document per version of a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from skewless.contract.plan import View
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress in a source; a hint that is checked against the log.

    Args:
        files: fingerprints of the source's files.
        upto_us: publication time up to which they were read.
        next_seq: end of the log at that time.
        waiting: number of rows in these files that were not due, by reason.
        next_due_us: when the first of these rows is due; None: no row waits.
    """

    files: Mapping[str, str]
    upto_us: int
    next_seq: int
    waiting: Mapping[str, int]
    next_due_us: int | None

    @classmethod
    def read(cls, state: ProjectState, view: View) -> Self | None:
        """Return the progress of a view; None if no run has read the source, or another release wrote it."""
        body = _documents(state).get(_name(view))
        try:
            return None if body is None else cls(**body)
        except TypeError:
            return None

    def write(self, state: ProjectState, view: View) -> None:
        """Replace the progress of a view.

        Raises:
            StoreError: the database is unavailable.
        """
        _documents(state).put(_name(view), asdict(self))


def _documents(state: ProjectState) -> Documents:
    return Documents(state.database, "read_progress")


def _name(view: View) -> str:
    return f"{view.name}-{view.hash}"
