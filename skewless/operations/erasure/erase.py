"""Erases an entity from everything that a project has stored; a repeated call does what an interrupted one has not."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any

from skewless.infra.engines.job import delete_results
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.log_columns import decode_columns
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.online.store import open_online_store
from skewless.infra.storage.documents import Records
from skewless.infra.storage.leases import Leases
from skewless.infra.storage.objects import StoredObject
from skewless.operations.erasure.entity import Entity
from skewless.operations.erasure.entity_rows import find_accepted_rows, find_outcomes, find_predictions
from skewless.operations.erasure.online_rows import OnlineRows
from skewless.operations.erasure.source_rows import check_sources
from skewless.workspace import Workspace

_KIND = "erasures"
_VIEWS, _EVENTS = "batch/", "events/"  # begin the names of logs
NOT_COVERED = (
    "backups",
    "datasets and reports that were written before",
    "reference rows of packages, which have values and no keys",
    "the quarantine folder, which keep_quarantine_days empties",
    "messages that still wait in streams, and predictions that other machines have not shipped",
)


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt:
    """The result of an erasure.

    Args:
        at_us: time of its end, UTC microseconds.
        digest: of the salt and the keys; the project's record has it, too.
        salt: only the receipt has it: with the keys, it proves that the record is of this entity.
        rows, events: erased rows in the logs of views and of events.
        predictions, outcomes: removed from their logs.
        online: deleted rows and states in the online store.
        built: windowed views whose states were built again.
        objects: deleted files of logs.
        waiting: files of logs that other processes still read; `skewless housekeeping` deletes them.
        dry_run: nothing was changed; counts are of what would be.
    """

    at_us: int
    digest: str
    salt: str
    rows: int
    events: int
    predictions: int
    outcomes: int
    online: int = 0
    built: int = 0
    objects: int = 0
    waiting: int = 0
    dry_run: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the list of what an erasure does not cover."""
        return asdict(self) | {"not_covered": list(NOT_COVERED)}


def erase(project: Workspace, entity: Mapping[str, str], *, dry_run: bool = False) -> ErasureReceipt:
    """Erase an entity from logs, online store and local copies.

    Args:
        entity: join key -> value as text; rows with more keys belong to it, too.
        dry_run: only count.

    Raises:
        RequestError: a key is unknown, or its value is not of its type.
        SourceError: a source still has rows of the entity.
        StoreError: the store, the database or the disk failed; a repeated call continues.
        ConflictError: another process has taken over, because this one was suspended for too long.
    """
    catalog = Catalog(project.state.database)
    columns = {
        name: decode_columns(catalog.columns(name))
        for name in catalog.partitions()
        if name.startswith((_VIEWS, _EVENTS))
    }
    parsed = Entity.parse(entity, project.needed.plan.join_keys, columns.values())
    leases = Leases(project.state.database)
    # No run of these jobs may write rows while they are erased.
    jobs = ["materialize", *sorted(f"import {source.name}" for source in project.needed.plan.sources)]
    with ExitStack() as stack:
        held = [] if dry_run else [stack.enter_context(leases.hold(job)) for job in jobs]

        def check() -> None:
            for lease in held:
                leases.check(lease)

        check_sources(project, parsed)
        partitions = [name for name, schema in columns.items() if parsed.values(schema) is not None]
        return _Erasure(project, catalog, parsed, partitions, check).run(dry_run=dry_run)


class _Erasure:
    """One erasure; ``check`` raises an error if this process has lost the right to write rows."""

    def __init__(
        self, project: Workspace, catalog: Catalog, entity: Entity, partitions: list[str], check: Callable[[], None]
    ) -> None:
        self._project, self._catalog, self._entity, self._check = project, catalog, entity, check
        state = project.state
        self._accepted = {name: find_accepted_rows(PartitionLog(state, name), entity) for name in partitions}
        self._predictions = find_predictions(state, entity)
        self._outcomes = find_outcomes(state, entity, self._predictions)
        self._online = self._built = 0
        self._replaced: list[StoredObject] = []

    def run(self, *, dry_run: bool) -> ErasureReceipt:
        if dry_run:
            return self._receipt(dry_run=True)
        with closing(open_online_store(self._project.redis_url)) as store:
            online = OnlineRows(project=self._project, store=store)
            self._erase_accepted(online)
            # Outcomes first: after an interruption, their predictions are still there to find them.
            self._replaced += self._outcomes.erase() + self._predictions.erase()
            # Before this process reads the logs for the states, so that it does not count as their reader.
            objects = self._delete_objects()
            self._build(online)
        if self._project.settings.redis_url is None:
            self._project.private.rewrite_file()
        receipt = self._receipt(objects=objects)
        record = {name: value for name, value in receipt.as_dict().items() if name not in {"salt", "not_covered"}}
        Records(self._project.state.database, _KIND).add("project", record)
        return receipt

    def _erase_accepted(self, online: OnlineRows) -> None:
        for partition, rows in self._accepted.items():
            if not rows.rows:
                continue
            is_view = partition.startswith(_VIEWS)
            if is_view:
                # Online first: after an interruption, the log still has the keys.
                self._online += online.delete_view(partition, rows)
            else:
                online.add_build(_source_of(partition))
            self._check()
            self._replaced += rows.erase()
            if is_view:
                # A repair from the log may have written a row again meanwhile.
                self._online += online.delete_view(partition, rows)

    def _build(self, online: OnlineRows) -> None:
        """Build the states of the sources with erased events, also of an interrupted erasure."""
        for source in online.list_builds():
            parts = [rows for name, rows in self._accepted.items() if name.startswith(f"{_EVENTS}{source}/")]
            built, deleted = online.build(source, parts)
            self._built, self._online = self._built + built, self._online + deleted

    def _delete_objects(self) -> int:
        """Delete the replaced objects and their local copies, unless a process reads them; return how many."""
        delete_results(self._project.state)
        storage = self._project.state.storage
        deleted = self._catalog.delete_unread(storage)
        waiting = self._catalog.list_removed()
        for stored in self._replaced:
            if stored.name not in waiting:
                storage.delete_copy(stored)
        return deleted

    def _receipt(self, *, objects: int = 0, dry_run: bool = False) -> ErasureReceipt:
        salt = secrets.token_hex(16)
        return ErasureReceipt(
            at_us=self._project.clock.now_us(),
            digest=self._entity.digest(salt),
            salt=salt,
            rows=self._count(_VIEWS),
            events=self._count(_EVENTS),
            predictions=self._predictions.rows,
            outcomes=self._outcomes.rows,
            online=self._online,
            built=self._built,
            objects=objects,
            waiting=len(self._catalog.list_removed()),
            dry_run=dry_run,
        )

    def _count(self, prefix: str) -> int:
        return sum(rows.rows for name, rows in self._accepted.items() if name.startswith(prefix))


def _source_of(partition: str) -> str:
    return partition.split("/")[1]
