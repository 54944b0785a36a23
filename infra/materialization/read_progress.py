"""How far the source of a view has been read: a file per version of a view."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from skewless.contract.errors import StoreError
from skewless.infra.storage.durable import make_folder


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a source has been read; a hint, checked against the log.

    Args:
        files: fingerprints of the source's files.
        upto_us: publication time up to which they were read.
        next_seq: end of the log at that moment.
        waiting: rows of the same files that were not due then, by what they wait for. A file without this field was
            written when rows that happen after they were written were rejected: it says nothing any more.
        next_due_us: when the first of these rows is due, if there is one.
    """

    files: Mapping[str, str]
    upto_us: int
    next_seq: int
    waiting: Mapping[str, int]
    next_due_us: int | None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a file says; None where it says nothing that can be understood."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Put it into a file.

        Raises:
            StoreError: the disk refused.
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
