"""The decisions of a model's gate about its versions, with their evidence; they are never deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skewless.infra.storage.names import model_folder
from skewless.infra.storage.numbered_files import NumberedFiles


class Decisions:
    """The decisions in one packages folder.

    Args:
        root: folder of all models' packages.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, model: str, version: str, decision: Mapping[str, Any], now_us: int) -> None:
        """Store a decision about a version.

        Args:
            decision: plain JSON values.
            now_us: the clock, UTC microseconds.

        Raises:
            StoreError: the disk refused the write; nothing was added.
        """
        files, record = self._files(model), {"version": version, "at_us": now_us, **decision}
        while True:
            try:
                files.append(max(files.numbers(), default=0) + 1, record)
            # Another process has used the number: any free number will do.
            except FileExistsError:
                continue
            return

    def read_latest_first(self, model: str) -> Iterator[dict[str, Any]]:
        """Yield the decisions about a model's versions, latest first."""
        return (dict(record) for _, record in self._files(model).read_latest_first())

    def last(self, model: str, version: str) -> dict[str, Any] | None:
        """Return the last decision about a version."""
        return next((decision for decision in self.read_latest_first(model) if decision["version"] == version), None)

    def _files(self, model: str) -> NumberedFiles:
        folder = model_folder(self._root, model)
        return NumberedFiles(folder / "decisions", folder / ".decisions.lock", "decision")
