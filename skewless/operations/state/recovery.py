"""Takes objects back into the logs after the database was restored to an older state; reports what is still missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from skewless.contract.errors import ConflictError, SkewlessError, StoreError
from skewless.contract.keys import marker_key, window_marker
from skewless.contract.plain_record import PlainRecord
from skewless.infra.log.catalog import IMPORTED, LOG_FOLDERS, ORPHAN_LOCK, Catalog, log_partitions
from skewless.infra.log.generations import Generations
from skewless.infra.log.orphans import Orphan, read_orphan
from skewless.infra.log.recovery import PartitionRecovery, Piece
from skewless.infra.log.runs import RunLedger
from skewless.infra.platform.storage.durable import translate_disk_errors
from skewless.infra.platform.storage.objects import digest_file
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.outcomes.log import OUTCOMES
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless.operations.audited import audited
from skewless.operations.health.status import open_online
from skewless.workspace import Workspace

_ANY_AGE = 2**62
_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class LogRecovery:
    """The rows that a log got back.

    Args:
        log: its partition.
        appended: rows that it did not list.
        replaced: rows of listed segments whose objects were merged and deleted.
    """

    log: str
    appended: int
    replaced: int


@dataclass(frozen=True, kw_only=True)
class RecoveryReport(PlainRecord):
    """The result of a recovery.

    Args:
        logs: logs that got rows back.
        conflicts: objects that cannot be taken back: ``partition``, ``position``, ``problem``, ``objects``.
        missing: listed objects that the storage does not have.
        imports: event sources whose history must be imported again.
        ahead: views whose online state includes rows that the log lacks: ``view``, ``log``, ``position``, ``end``.
        runs: materialization runs that rows name and the ledger lacked.
        versions: ``MODEL VERSION`` of packages without an alias and without a decision of a gate.
        unused: number of other objects that no log lists; housekeeping deletes them after a day.
        uploaded: listed objects that only this host had.
        unchecked: why ``ahead`` and ``versions`` could not be found out; empty: they are complete.
        dry_run: nothing was changed.
    """

    logs: list[LogRecovery]
    conflicts: list[dict[str, Any]]
    missing: list[str]
    imports: list[str]
    runs: list[int]
    unused: int
    dry_run: bool
    ahead: list[dict[str, Any]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    unchecked: str = ""
    uploaded: list[str] = field(default_factory=list)

    @property
    def error(self) -> SkewlessError | None:
        """The first problem that an operator has to solve; None: there is none."""
        if self.conflicts:
            first = self.conflicts[0]
            fix = "see docs/database.md: keep one of the objects, or read the source again"
            return ConflictError(
                f"log partition {first['partition']!r}", first["problem"], value=first["objects"][0], fix=fix
            )
        if self.missing:
            fix = "run `skewless recover` on the host that has it, or restore it from a backup"
            return StoreError(f"log file {self.missing[0]}", "is missing", fix=fix)
        if self.ahead and not self.dry_run:
            first = self.ahead[0]
            fix = "import the history again" if self.imports else f"run `skewless backfill {first['view']}`"
            return ConflictError(f"view {first['view']!r}", "is ahead of the log", value=first["position"], fix=fix)
        return None


@audited()
def recover(project: Workspace, *, dry_run: bool = False) -> RecoveryReport:
    """Take objects that no log lists back into the logs; safe while the project runs, and to run again.

    Args:
        project: whose database was restored to an older state.
        dry_run: change nothing.

    Raises:
        StoreError: database or storage failed; a later call continues.
    """
    report = recover_logs(project.state, dry_run=dry_run)
    try:
        return replace(report, ahead=_find_ahead(project), versions=_find_unknown_versions(project))
    except SkewlessError as error:
        return replace(report, unchecked=str(error))


def recover_logs(state: ProjectState, *, dry_run: bool = False) -> RecoveryReport:
    """Do the same as ``recover`` for the logs alone."""
    with nullcontext() if dry_run else state.database.hold_lock(ORPHAN_LOCK):
        return _Recovery(state, dry_run=dry_run).run()


class _Recovery:
    """One recovery of all logs."""

    def __init__(self, state: ProjectState, *, dry_run: bool) -> None:
        self._state = state
        self._dry_run = dry_run
        self._orphans: dict[str, list[Orphan]] = defaultdict(list)
        self._conflicts: list[dict[str, Any]] = []
        self._pieces: dict[str, list[Piece]] = defaultdict(list)

    def run(self) -> RecoveryReport:
        names, missing = self._scan()
        uploaded = self._upload_own(missing)
        missing.difference_update(uploaded)
        last_run = RunLedger(self._state.database).last_run()
        partitions = sorted(self._orphans.keys() | {name for each, name in _listed(self._state) if each in missing})
        for partition in partitions:
            if IMPORTED not in partition:
                self._recover_partition(partition, missing)
        pieces = [piece for pieces in self._pieces.values() for piece in pieces]
        replaced = {segment.stored.name for piece in pieces for segment in piece.replaced}
        return RecoveryReport(
            logs=[_count(name, self._pieces[name]) for name in sorted(self._pieces)],
            conflicts=self._conflicts,
            missing=sorted(name for name, _ in _listed(self._state) if name in missing - replaced),
            imports=sorted({name.split("/")[1] for name in partitions if IMPORTED in name and self._is_ahead(name)}),
            runs=sorted({run_id for piece in pieces for run_id in piece.orphan.runs if run_id > last_run}),
            unused=len(names) - len(pieces),
            dry_run=self._dry_run,
            uploaded=uploaded,
        )

    def _scan(self) -> tuple[list[str], set[str]]:
        """Read all orphans; return their names, and those of listed objects that the storage does not have."""
        storage, listed = self._state.storage, {name for name, _ in _listed(self._state)}
        catalog = Catalog(self._state.database)
        names = [name for folder in LOG_FOLDERS for name in catalog.find_orphans(storage, folder, _ANY_AGE)]
        present = {item.name for folder in LOG_FOLDERS for item in storage.list_objects(folder)}
        for name in names:
            if orphan := read_orphan(storage, name):
                self._orphans[orphan.partition].append(orphan)
        # Objects that another process has merged and deleted meanwhile are not listed any more.
        return names, {name for name, _ in _listed(self._state) if name in listed - present}

    def _upload_own(self, missing: set[str]) -> list[str]:
        """Upload listed objects that are only in this host's folder: it has worked without ``storage_url``."""
        uploaded = []
        rows = self._state.database.query("SELECT object, digest FROM segments ORDER BY object")
        for name, digest in [row for row in rows if row[0] in missing]:
            path = self._state / name
            with translate_disk_errors(path):
                if path.is_file() and digest_file(path) == digest:
                    if not self._dry_run:
                        self._state.storage.put_file(name, path)
                        path.unlink()  # no erasure would find it
                    uploaded.append(str(name))
        return uploaded

    def _recover_partition(self, partition: str, missing: set[str]) -> None:
        keys = {PREDICTIONS: ("id",), OUTCOMES: ("batch", "row")}.get(partition, ())
        for attempt in range(_ATTEMPTS):
            recovery = PartitionRecovery(self._state, partition, self._orphans[partition], missing, keys)
            pieces, conflicts = recovery.plan()
            try:
                for piece in pieces:
                    if not self._dry_run:
                        recovery.apply(piece)
                    if piece.rows:
                        self._pieces[partition].append(piece)
            except ConflictError:
                if attempt + 1 == _ATTEMPTS:
                    raise
            else:
                self._conflicts += [conflict._asdict() for conflict in conflicts]
                return

    def _is_ahead(self, partition: str) -> bool:
        """Return whether the log lacks imported rows: the record of the import, which tells new ones, is lost, too."""
        end = Catalog(self._state.database).next_seq(partition)
        return any(orphan.last >= end for orphan in self._orphans[partition])


def _count(partition: str, pieces: Sequence[Piece]) -> LogRecovery:
    appended, replaced = (sum(each.rows for each in pieces if bool(each.replaced) is kind) for kind in (False, True))
    return LogRecovery(log=partition, appended=appended, replaced=replaced)


def _listed(state: ProjectState) -> list[tuple[str, str]]:
    """Return the name and the partition of each listed object."""
    return [(name, partition) for name, partition in state.database.query("SELECT object, partition FROM segments")]


def _find_ahead(project: Workspace) -> list[dict[str, Any]]:
    """Return the views whose markers are ahead of the log: workers and materialization refuse to continue."""
    catalog, markers = Catalog(project.state.database), list(_list_markers(project))
    with open_online(project) as (online, store):
        if store is None:
            raise StoreError("online store", f"cannot be read: {online.reason}", fix="start it, then run it again")
        positions = [store.marker(marker) for _, _, marker in markers]
    found = []
    for (view, partition, _), position in zip(markers, positions, strict=True):
        end = catalog.next_seq(partition) - 1
        if position is not None and position > end:
            found.append({"view": view, "log": partition, "position": position, "end": end})
    return found


def _list_markers(project: Workspace) -> Iterator[tuple[str, str, str]]:
    """Yield view, log partition and name of each marker."""
    plan, generations = project.needed.plan, Generations(project.state)
    for view in plan.views:
        yield project.needed.label(view), view.partition, marker_key(plan.project, view)
    for window in plan.windows:
        for generation in generations.list_written(window):
            for name in {*generation.partitions, *log_partitions(project.state, window.source)}:
                yield project.needed.label(window), name, window_marker(plan.project, window, generation.number, name)


def _find_unknown_versions(project: Workspace) -> list[str]:
    """Return the versions of which the database has neither an alias nor a decision."""
    found = []
    for spec in project.models:
        aliases = project.store.aliases
        known = {move.to for name in aliases.names(spec.name) for move in aliases.history(spec.name, name)}
        known |= {decision["version"] for decision in project.store.decisions.read_latest_first(spec.name)}
        found += [f"{spec.name} {each}" for each in project.packages.list_versions(spec.name) if each not in known]
    return found
