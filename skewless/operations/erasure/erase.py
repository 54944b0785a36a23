"""Erases an entity from everything that a project has stored; a repeated call does what an interrupted one has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from skewless.operations.erasure.receipt import ErasureReceipt

if TYPE_CHECKING:
    from skewless.infra.log.catalog import Catalog
    from skewless.infra.storage.objects import StoredObject
    from skewless.operations.erasure.accepted_rows import LoggedEntity
    from skewless.operations.erasure.entity import Entity
    from skewless.operations.erasure.online_rows import OnlineRows
    from skewless.workspace import Workspace

_KIND = "erasures"


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
    from skewless.infra.log.catalog import Catalog
    from skewless.infra.log.log_columns import decode_columns
    from skewless.infra.storage.leases import Leases
    from skewless.operations.erasure.entity import Entity
    from skewless.operations.erasure.source_rows import check_sources

    catalog = Catalog(project.state.database)
    names = [*catalog.ends("batch"), *catalog.ends("events")]
    parsed = Entity.parse(
        entity, project.needed.plan.join_keys, (decode_columns(catalog.columns(name)) for name in names)
    )
    leases = Leases(project.state.database)
    # No run of these jobs may write rows while they are erased.
    jobs = ["materialize", *sorted(f"import {source.name}" for source in project.needed.plan.sources)]
    with ExitStack() as stack:
        held = [] if dry_run else [stack.enter_context(leases.hold(job)) for job in jobs]

        def check() -> None:
            for lease in held:
                leases.check(lease)

        check_sources(project, parsed)
        return _Erasure(project, catalog, parsed, check).run(dry_run=dry_run)


class _Erasure:
    """One erasure; ``check`` raises an error if this process has lost the right to write rows."""

    def __init__(self, project: Workspace, catalog: Catalog, entity: Entity, check: Callable[[], None]) -> None:
        from skewless.operations.erasure.accepted_rows import find_entity
        from skewless.operations.erasure.logged_rows import LoggedRows

        self._project, self._catalog, self._entity, self._check = project, catalog, entity, check
        state = project.state
        self._views = {name: find_entity(state, name, entity) for name in catalog.ends("batch")}
        self._events = {name: find_entity(state, name, entity) for name in catalog.ends("events")}
        self._logged = LoggedRows(state, entity)
        self._online = self._built = 0
        self._replaced: list[StoredObject] = []

    def run(self, *, dry_run: bool) -> ErasureReceipt:
        if dry_run:
            return self._receipt(dry_run=True)
        from skewless.infra.online.store import open_online_store
        from skewless.infra.storage.documents import Records
        from skewless.operations.erasure.online_rows import OnlineRows

        with closing(open_online_store(self._project.redis_url)) as store:
            online = OnlineRows(project=self._project, store=store)
            self._erase_views(online)
            self._erase_events(online)
            self._replaced += self._logged.erase()
            # Before this process reads the logs for the states, so that it does not count as their reader.
            objects = self._delete_objects()
            self._build(online)
        if self._project.settings.redis_url is None:
            self._project.private.rewrite_file()
        receipt = self._receipt(objects=objects)
        record = {name: value for name, value in receipt.as_dict().items() if name not in {"salt", "not_covered"}}
        Records(self._project.state.database, _KIND).add("project", record)
        return receipt

    def _erase_views(self, online: OnlineRows) -> None:
        for partition, found in self._views.items():
            if found.rows:
                # Online first: after an interruption, the log still has the keys.
                self._online += online.delete_view(partition, found)
                self._erase_rows(partition)
                # A repair from the log may have written a row again meanwhile.
                self._online += online.delete_view(partition, found)

    def _erase_events(self, online: OnlineRows) -> None:
        for partition, found in self._events.items():
            if found.rows:
                online.add_build(_source_of(partition))
                self._erase_rows(partition)

    def _build(self, online: OnlineRows) -> None:
        """Build the states of the sources with erased events, also of an interrupted erasure."""
        for source in online.list_builds():
            parts = [found for partition, found in self._events.items() if _source_of(partition) == source]
            built, deleted = online.build(source, parts)
            self._built, self._online = self._built + built, self._online + deleted

    def _erase_rows(self, partition: str) -> None:
        from skewless.operations.erasure.accepted_rows import erase_rows

        self._check()
        self._replaced += erase_rows(self._project.state, partition, self._entity)

    def _delete_objects(self) -> int:
        """Delete the replaced objects and their local copies, unless a process reads them; return how many."""
        from skewless.infra.engines.job import delete_results

        delete_results(self._project.state)
        storage = self._project.state.storage
        deleted = self._catalog.delete_unread(storage)
        waiting = self._catalog.list_removed()
        for stored in self._replaced:
            if stored.name not in waiting:
                storage.delete_copy(stored)
        return deleted

    def _receipt(self, *, objects: int = 0, dry_run: bool = False) -> ErasureReceipt:
        import secrets

        salt = secrets.token_hex(16)
        return ErasureReceipt(
            at_us=self._project.clock.now_us(),
            digest=self._entity.digest(salt),
            salt=salt,
            rows=_sum_rows(list(self._views.values())),
            events=_sum_rows(list(self._events.values())),
            predictions=self._logged.predictions,
            outcomes=self._logged.outcomes,
            online=self._online,
            built=self._built,
            objects=objects,
            waiting=len(self._catalog.list_removed()),
            dry_run=dry_run,
        )


def _source_of(partition: str) -> str:
    return partition.split("/")[1]


def _sum_rows(found: Sequence[LoggedEntity]) -> int:
    return sum(each.rows for each in found)
