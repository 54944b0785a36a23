"""The progress in the source of a view: one file per version of a view."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from skewless.contract.errors import StoreError
from skewless.contract.plan import View
from skewless.infra.storage.durable import make_folder
from skewless.infra.storage.project_state import ProjectState


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress in a source; a hint that is checked against the log.

    Args:
        files: fingerprints of the source's files.
        upto_us: publication time up to which they were read.
        next_seq: end of the log at that time.
        waiting: number of rows in these files that were not due, by reason. Older files lack this field and are
            ignored, because such rows were rejected then.
        next_due_us: when the first of these rows is due; None: no row waits.
    """

    files: Mapping[str, str]
    upto_us: int
    next_seq: int
    waiting: Mapping[str, int]
    next_due_us: int | None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the content of a file; None if it cannot be read or parsed."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write it to a file.

        Raises:
            StoreError: the file cannot be written.
        """
        temporary = path.with_suffix(".tmp")
        try:
            make_folder(path.parent)
            temporary.write_text(json.dumps(asdict(self)))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(
                f"file {path}", f"cannot be written: {error}", fix="make room, or give write access, then run again"
            ) from error


def progress_path(state: ProjectState, view: View) -> Path:
    """Return the file of a view's progress; it exists once a run has read the source."""
    return state / "progress" / f"{view.name}-{view.hash}.json"
