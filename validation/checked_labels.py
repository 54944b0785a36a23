"""How far a label table has been judged: what passed is not judged again, what failed is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from skewless.infra.storage.durable import replace_durable


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """The last check of a label table that passed.

    Args:
        upto_us: rows known by then were judged, UTC microseconds.
        files: fingerprints of the table's files at that time.
        suite: identity of what was demanded of which columns.
    """

    upto_us: int
    files: Mapping[str, str]
    suite: str

    def covers(self, suite: str, now_us: int) -> bool:
        """Say whether it tells anything about a check of ``suite`` at a time."""
        return self.suite == suite and self.upto_us <= now_us

    def changed(self, files: Mapping[str, str]) -> list[str]:
        """Return the files that are new, or not what they were."""
        return [file for file, fingerprint in files.items() if self.files.get(file) != fingerprint]


class CheckedLabels:
    """The last passed check of each model's label table: ``validation/labels-MODEL.json`` in the state folder."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "validation"

    def read(self, model: str) -> LabelCheck | None:
        """Return the last check that passed; None: there was none, or its file tells nothing."""
        try:
            return LabelCheck(**json.loads(self._path(model).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def passed(self, model: str, checked: LabelCheck) -> None:
        """Remember a check that passed, durably.

        Raises:
            StoreError: the disk refused; everything is judged again.
        """
        replace_durable(self._path(model), json.dumps(asdict(checked)).encode())

    def _path(self, model: str) -> Path:
        return self._folder / f"labels-{model}.json"
