"""The ledger of materialization runs: when each began, and the log rows that it has applied.

A run has two files, each created once: ``ID.start.json`` and ``ID.end.json``. A run without an end is running, or
crashed; then a later run covers its rows (SEMANTICS 2.6, 2.7).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from skewless.contract.errors import StoreError
from skewless.infra.storage.durable import make_folder, sync_folder

Kind = Literal["live", "bootstrap"]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Log positions ``first`` to ``last`` of one partition that a run applied."""

    first: int
    last: int
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class MaterializationRun:
    """One materialization run; times are microseconds of the project's clock.

    Args:
        run_id: from 1.
        started_us: when it began.
        skew_us: offset of this machine's clock to the store's when the run began.
        ended_us: None while it runs, and forever if it crashed.
        covers: per partition, the positions that it applied.
    """

    run_id: int
    started_us: int
    skew_us: int = 0
    ended_us: int | None = None
    covers: Mapping[str, Coverage] = field(default_factory=dict)


class RunLedger:
    """The runs of one project, in the order of their ids."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._finished: dict[int, MaterializationRun] = {}

    def start(self, now_us: int, skew_us: int = 0) -> MaterializationRun:
        """Record the start of a run; it gets the next free id."""
        make_folder(self._root)
        run_id = max(self._ids(), default=0) + 1
        while not self._create(run_id, "start", {"started_us": now_us, "skew_us": skew_us}):
            run_id += 1
        return MaterializationRun(run_id=run_id, started_us=now_us, skew_us=skew_us)

    def finish(self, run: MaterializationRun, covers: Mapping[str, Coverage], now_us: int) -> MaterializationRun:
        """Record the end of a run and the positions that it applied."""
        body = {"ended_us": now_us, "covers": {name: asdict(item) for name, item in covers.items()}}
        self._create(run.run_id, "end", body)
        return replace(run, ended_us=now_us, covers=covers)

    def withdraw(self, run: MaterializationRun) -> None:
        """Remove a run that failed before it wrote a row to the log or the store."""
        self._path(run.run_id, "start").unlink(missing_ok=True)

    def runs(self) -> list[MaterializationRun]:
        """Return all runs, oldest first."""
        return [self._read(run_id) for run_id in self._ids()]

    def _ids(self) -> list[int]:
        return sorted(int(path.name.split(".")[0]) for path in self._root.glob("*.start.json"))

    def _read(self, run_id: int) -> MaterializationRun:
        if run_id in self._finished:
            return self._finished[run_id]
        start = json.loads(self._path(run_id, "start").read_text())
        end_path = self._path(run_id, "end")
        if not end_path.exists():
            return MaterializationRun(run_id=run_id, **start)
        end = json.loads(end_path.read_text())
        covers = {name: Coverage(**item) for name, item in end["covers"].items()}
        run = MaterializationRun(run_id=run_id, **start, ended_us=end["ended_us"], covers=covers)
        self._finished[run_id] = run
        return run

    def _path(self, run_id: int, suffix: str) -> Path:
        return self._root / f"{run_id:010d}.{suffix}.json"

    def _create(self, run_id: int, suffix: str, body: Mapping[str, object]) -> bool:
        temporary = self._root / f".{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("w") as file:
                file.write(json.dumps(body))
                file.flush()
                os.fsync(file.fileno())
            # The link fails if another process has just taken the id.
            os.link(temporary, self._path(run_id, suffix))
            sync_folder(self._root)
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreError(
                f"run ledger {self._root}",
                f"cannot be written: {error}",
                fix="free disk space, or give write access, then run again",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return True


@dataclass(frozen=True, kw_only=True)
class KnownRange:
    """Log positions ``first`` to ``last`` that one run was the first to apply completely."""

    first: int
    last: int
    kind: Kind
    ended_us: int


def known_ranges(runs: Iterable[MaterializationRun], partition: str) -> list[KnownRange]:
    """Return disjoint, ascending ranges of one partition: each position belongs to the first run that applied it."""
    finished = [run for run in runs if run.ended_us is not None and partition in run.covers]
    ranges: list[KnownRange] = []
    last_position = -1
    # Runs exclude each other, so ids give their order. Times do not: a clock may be set back.
    for run in sorted(finished, key=lambda item: item.run_id):
        part = run.covers[partition]
        if part.last > last_position:
            first = max(part.first, last_position + 1)
            ranges.append(KnownRange(first=first, last=part.last, kind=part.kind, ended_us=run.ended_us or 0))
            last_position = part.last
    return ranges


def last_by_partition(runs: Iterable[MaterializationRun]) -> dict[str, int]:
    """Return the last position of each partition that a finished run has applied; -1: it applied none.

    >>> from skewless.infra.log.runs import Coverage
    >>> cover = Coverage(first=0, last=4, kind="live")
    >>> first = MaterializationRun(run_id=1, started_us=0, ended_us=9, covers={"p": cover})
    >>> last_by_partition([first, MaterializationRun(run_id=2, started_us=9)])
    {'p': 4}
    """
    last_positions: dict[str, int] = {}
    for run in runs:
        if run.ended_us is not None:
            for partition, part in run.covers.items():
                last_positions[partition] = max(part.last, last_positions.get(partition, -1))
    return last_positions


def last_covered(runs: Iterable[MaterializationRun], partition: str) -> int:
    """Return the last position of a partition that a finished run has applied; -1: none."""
    return last_by_partition(runs).get(partition, -1)
