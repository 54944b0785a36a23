"""The allow and deny lists of a project: values that policies look up, in versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from skewless.contract.errors import SourceError
from skewless.infra.rollout.entity_lists import EntityLists, ListVersion
from skewless.operations.audited import audited
from skewless.workspace import Workspace

_MOST_BYTES = 200_000_000


@dataclass(frozen=True)
class ProjectLists:
    """The lists of a project: ``skewless lists``. Servers follow within two seconds."""

    project: Workspace

    @partial(audited, action="lists.set")
    def set(self, name: str, values: Iterable[str] | Path, *, reason: str, dry_run: bool = False) -> ListVersion:
        """Write the next version of a list; equal values write none.

        Args:
            values: as text, or a file with one value per line.
            reason: a sentence, or a link.

        Raises:
            SourceError: the file cannot be read.
            RequestError: the name or a value is invalid, or there are too many values.
            StoreError: the database is unavailable; nothing was written.
        """
        lists = EntityLists(self.project.state.database)
        known = _read_lines(values) if isinstance(values, Path) else values
        return lists.write(name, known, reason=reason, now_us=self.project.clock.now_us(), dry_run=dry_run)

    def list(self) -> Sequence[ListVersion]:
        """Return the latest version of each list, sorted by name."""
        lists = EntityLists(self.project.state.database)
        return [version for name in lists.names() if (version := lists.read(name)) is not None]


def _read_lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SourceError(f"file {path}", "is too large", value=path.stat().st_size, fix="split the list")
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"file {path}", "cannot be read", value=str(error), fix="write one value per line") from error
