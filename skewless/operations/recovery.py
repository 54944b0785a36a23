"""Takes objects back into the logs after the database was restored to an older state; reports what is still missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from skewless.contract.errors import ConflictError, SkewlessError, StoreError

if TYPE_CHECKING:
    from skewless.infra.log.orphans import Orphan
    from skewless.infra.log.partition_log import PartitionLog
    from skewless.infra.log.recovery import Piece
    from skewless.infra.storage.project_state import ProjectState
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
class RecoveryReport:
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
            fix = "restore it from a backup"
            return StoreError(f"log file {self.missing[0]}", "is missing", fix=fix)
        if self.ahead and not self.dry_run:
            first = self.ahead[0]
            fix = "import the history again" if self.imports else f"run `skewless backfill {first['view']}`"
            return ConflictError(f"view {first['view']!r}", "is ahead of the log", value=first["position"], fix=fix)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class _Scan(NamedTuple):
    """The content of the storage: orphans by partition, names by log, and listed objects that are missing."""

    orphans: Mapping[str, Sequence[Orphan]]
    shipped: Mapping[str, Sequence[str]]
    missing: set[str]
    total: int


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
    from skewless.infra.log.catalog import ORPHAN_LOCK

    with nullcontext() if dry_run else state.database.hold_lock(ORPHAN_LOCK):
        return _Recovery(state, dry_run=dry_run).run()


class _Recovery:
    """One recovery of all logs."""

    def __init__(self, state: ProjectState, *, dry_run: bool) -> None:
        self._state = state
        self._dry_run = dry_run
        self._logs: dict[str, LogRecovery] = {}
        self._conflicts: list[dict[str, Any]] = []
        self._imports: set[str] = set()
        self._runs: set[int] = set()
        self._pieces: dict[str, list[Piece]] = defaultdict(list)
        self._used = 0

    def run(self) -> RecoveryReport:
        from skewless.infra.log.partitions import IMPORTED

        spools, scan = _spooled_logs(), _scan(self._state)
        for partition in sorted(scan.orphans.keys() | _partitions_of(self._state, scan.missing)):
            if IMPORTED in partition:
                self._note_import(partition, scan)
            else:
                self._recover_partition(partition, scan, is_spooled=partition in spools)
        for partition, columns in spools.items():
            self._recover_shipped(partition, columns, scan)
        pieces = [piece for pieces in self._pieces.values() for piece in pieces]
        replaced = {segment.stored.name for piece in pieces for segment in piece.replaced}
        return RecoveryReport(
            logs=[self._logs[name] for name in sorted(self._logs)],
            conflicts=self._conflicts,
            missing=sorted((scan.missing - replaced) & _listed(self._state).keys()),
            imports=sorted(self._imports),
            runs=sorted(self._runs),
            unused=scan.total - self._used,
            dry_run=self._dry_run,
        )

    def _recover_partition(self, partition: str, scan: _Scan, *, is_spooled: bool) -> None:
        from skewless.infra.log.partition_log import PartitionLog
        from skewless.infra.log.recovery import plan_recovery

        orphans = scan.orphans.get(partition, ())
        for attempt in range(_ATTEMPTS):
            log = PartitionLog(self._state, partition)
            plan = plan_recovery(log, orphans, scan.missing, is_appended=not is_spooled)
            try:
                for piece in plan.pieces:
                    self._apply(log, piece)
            except ConflictError:
                if attempt + 1 == _ATTEMPTS:
                    raise
            else:
                self._conflicts += [conflict._asdict() for conflict in plan.conflicts]
                return

    def _apply(self, log: PartitionLog, piece: Piece) -> None:
        from skewless.infra.log.recovery import apply_piece
        from skewless.infra.log.runs import RunLedger

        ledger = RunLedger(self._state.database)
        last_run = ledger.last_run()

        def restore_runs(orphan: Orphan) -> None:
            # Rows name their run: the next run must not get its number.
            for run_id, started_us in orphan.runs.items():
                ledger.restore_start(run_id, started_us)

        if not self._dry_run:
            apply_piece(log, piece, restore_runs)
        self._runs |= {run_id for run_id in piece.orphan.runs if run_id > last_run}
        self._pieces[log.partition].append(piece)
        self._count(log.partition, 0 if piece.replaced else piece.rows, piece.rows if piece.replaced else 0)

    def _recover_shipped(self, partition: str, columns: Mapping[str, Any], scan: _Scan) -> None:
        from skewless.infra.log.spool_recovery import SpoolRecovery, list_shipped

        merged = scan.orphans.get(partition, ())
        recovery = SpoolRecovery(self._state, partition, missing=scan.missing, **columns)
        objects = list_shipped(scan.shipped.get(partition, ()))
        for rows in recovery.recover(merged, objects, self._pieces[partition], dry_run=self._dry_run):
            self._count(partition, rows.rows, 0)

    def _note_import(self, partition: str, scan: _Scan) -> None:
        """The record of an import is lost with the segments: only another import can tell which rows are new."""
        from skewless.infra.log.catalog import Catalog

        end = Catalog(self._state.database).next_seq(partition)
        if any(orphan.last >= end for orphan in scan.orphans.get(partition, ())):
            self._imports.add(partition.split("/")[1])

    def _count(self, partition: str, appended: int, replaced: int) -> None:
        before = self._logs.get(partition, LogRecovery(log=partition, appended=0, replaced=0))
        self._logs[partition] = LogRecovery(
            log=partition, appended=before.appended + appended, replaced=before.replaced + replaced
        )
        self._used += 1


def _spooled_logs() -> dict[str, dict[str, Any]]:
    """Return the logs of shipped files, with the columns that identify a row and have its time."""
    from skewless.infra.outcomes.writer import OUTCOMES
    from skewless.infra.predictions.segments import PREDICTIONS

    return {
        PREDICTIONS: {"keys": ("id",), "time": "t"},
        OUTCOMES: {"keys": ("batch", "row"), "time": "received_at"},
    }


def _scan(state: ProjectState) -> _Scan:
    from skewless.infra.log.catalog import LOG_FOLDERS, Catalog
    from skewless.infra.log.orphans import parse_name, read_orphan

    storage, listed = state.storage, _listed(state)
    names = [name for folder in LOG_FOLDERS for name in Catalog(state.database).find_orphans(storage, folder, _ANY_AGE)]
    present = {item.name for folder in LOG_FOLDERS for item in storage.list_objects(folder)}
    # Objects that another process has merged and deleted meanwhile are not listed any more.
    missing = (listed.keys() - present) & _listed(state).keys()
    orphans: dict[str, list[Orphan]] = defaultdict(list)
    shipped: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if parse_name(name) is None:
            shipped[name.partition("/")[0]].append(name)
        elif orphan := read_orphan(storage, name):
            orphans[orphan.partition].append(orphan)
    return _Scan(orphans, shipped, missing, len(names))


def _listed(state: ProjectState) -> dict[str, str]:
    """Return the partition of each listed object."""
    return dict(state.database.query("SELECT object, partition FROM segments"))


def _partitions_of(state: ProjectState, names: set[str]) -> set[str]:
    listed = _listed(state) if names else {}
    return {listed[name] for name in names & listed.keys()}


def _find_ahead(project: Workspace) -> list[dict[str, Any]]:
    """Return the views whose markers are ahead of the log: workers and materialization refuse to continue."""
    from skewless.infra.log.catalog import Catalog
    from skewless.operations.status import open_online

    catalog, markers = Catalog(project.state.database), list(_list_markers(project))
    online, store = open_online(project)
    if store is None:
        raise StoreError("online store", f"cannot be read: {online.reason}", fix="start it, then run it again")
    try:
        positions = [store.marker(marker) for _, _, marker in markers]
    finally:
        store.close()
    found = []
    for (view, partition, _), position in zip(markers, positions, strict=True):
        end = catalog.next_seq(partition) - 1
        if position is not None and position > end:
            found.append({"view": view, "log": partition, "position": position, "end": end})
    return found


def _list_markers(project: Workspace) -> Iterator[tuple[str, str, str]]:
    """Yield view, log partition and name of each marker."""
    from skewless.contract.keys import marker_key, window_marker
    from skewless.infra.log.generations import Generations
    from skewless.infra.log.partitions import log_partitions

    plan, generations = project.needed.plan, Generations(project.state)
    for view in plan.views:
        yield view.name, view.partition, marker_key(plan.project, view)
    for window in plan.windows:
        for generation in generations.list_written(window):
            for name in {*generation.partitions, *log_partitions(project.state, window.source)}:
                yield window.name, name, window_marker(plan.project, window, generation.number, name)


def _find_unknown_versions(project: Workspace) -> list[str]:
    """Return the versions of which the database has neither an alias nor a decision."""
    found = []
    for spec in project.models:
        aliases = project.store.aliases
        known = {move.to for name in aliases.names(spec.name) for move in aliases.history(spec.name, name)}
        known |= {decision["version"] for decision in project.store.decisions.read_latest_first(spec.name)}
        found += [f"{spec.name} {each}" for each in project.packages.list_versions(spec.name) if each not in known]
    return found
