"""The allow and deny lists of a project: values that policies look up, in versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError, SourceError
from skewless.infra.definitions.plans.applied_plan import read_valid
from skewless.infra.models.rollout.entity_lists import EntityLists, ListVersion
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.operations.audited import audited
from skewless.workspace import Workspace

_MOST_BYTES = 200_000_000
_INTEGERS, _INTEGER = {DType.INT32, DType.INT64}, re.compile(r"0|-?[1-9][0-9]*")
_log = EventLogger()


@dataclass(frozen=True)
class ProjectLists:
    """The lists of a project: ``skewless lists``. Servers follow within two seconds."""

    project: Workspace

    @audited("lists.set")
    def set(self, name: str, values: Iterable[str] | Path, *, reason: str, dry_run: bool = False) -> ListVersion:
        """Write the next version of a list; equal values write none.

        Args:
            values: as text, or a file with one value per line.
            reason: a sentence, or a link.

        Raises:
            SourceError: the file cannot be read.
            RequestError: the name or a value is invalid, or no request can have it, or there are too many values.
            StoreError: the database is unavailable; nothing was written.
        """
        lists = EntityLists(self.project.state.database)
        known = _read_lines(values) if isinstance(values, Path) else list(values)
        self._check(name, known)
        return lists.write(name, known, reason=reason, now_us=self.project.clock.now_us(), dry_run=dry_run)

    def list(self) -> Sequence[ListVersion]:
        """Return the latest version of each list, sorted by name."""
        lists = EntityLists(self.project.state.database)
        return [version for name in lists.names() if (version := lists.read(name)) is not None]

    def _check(self, name: str, values: Iterable[str]) -> None:
        """Check that what the applied policies look up in a list can have the values; otherwise they match nothing."""
        applied = read_valid(self.project.state)
        if applied is None:
            return
        looked_up = {spec.policy.lists.get(name) for spec in applied.models if spec.policy} - {None}
        if not looked_up:
            _log.warning("list_not_read", list=name, fix="correct the name, or apply a policy that reads it")
        types = {item.dtype for item in (*applied.plan.join_keys, *applied.plan.request) if item.name in looked_up}
        wrong = next((value for value in values if not _INTEGER.fullmatch(value)), None)
        if wrong is not None and types and types <= _INTEGERS:
            problem, fix = f"has a value that no {' or '.join(map(repr, looked_up))} has", "write integers, such as 42"
            raise RequestError(f"list {name!r}", problem, value=wrong, fix=fix)


def _read_lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SourceError(f"file {path}", "is too large", value=path.stat().st_size, fix="split the list")
        # Not splitlines, which also splits at separators that text may have; and an editor may begin with a mark.
        return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"file {path}", "cannot be read", value=str(error), fix="write one value per line") from error
