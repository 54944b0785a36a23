"""Erases an entity from everything that a project has stored; a repeated call does what an interrupted one has not."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SkewlessError, SourceError
from skewless.contract.keys import KeyCodec, parse_key
from skewless.infra.definitions.plans.retirement import ViewLifecycle
from skewless.infra.ingest.materialization.latest_rows import BACKFILLS
from skewless.infra.ingest.streams.backfill import Backfiller
from skewless.infra.ingest.streams.erased_messages import erase_messages
from skewless.infra.ingest.streams.history_file import file_columns
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.log_columns import decode_columns
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.models.rollout.entity_lists import EntityLists
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ANSWERS_FILE
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.engines.job import delete_results
from skewless.infra.reads.offline.changes import count_matching
from skewless.infra.reads.offline.source_columns import NO_ENTITY
from skewless.infra.reads.offline.sources import Table, find_table, has_files, view_table
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.reads.online.store import is_redis, open_online_store
from skewless.infra.records.outcomes.label_rows import delete_label_rows
from skewless.infra.records.predictions.erased_rows import ErasedPredictions
from skewless.operations.audited import audited
from skewless.operations.data.erasure.entity import (
    Entity,
    LoggedEntity,
    find_accepted_rows,
    find_lists,
    find_outcomes,
    find_predictions,
)
from skewless.operations.data.events import complete_backfills
from skewless.operations.predictions.proof import open_parity
from skewless.workspace import Workspace


def check_sources(project: Workspace, entity: Entity) -> None:
    """Check that no source of a view, and no history of an event source, has a row of an entity.

    Raises:
        SourceError: one has, or it cannot be read.
    """
    for table, columns in _list_tables(project):
        if not entity.keys.keys() <= columns.keys():
            continue
        values = [
            (columns[name][0], columns[name][1].dtype, parse_key(columns[name][1], text))
            for name, text in entity.keys.items()
        ]
        rows = count_matching(project.connection, table, values)
        if rows:
            raise SourceError(
                table.name,
                f"still has {rows:,} rows of the entity, which a later run would accept again",
                value=table.files[0],
                fix="delete them there first, or move the file away; then erase again",
            )


def _list_tables(project: Workspace) -> Iterator[tuple[Table, Mapping[str, tuple[str, Column]]]]:
    """Yield each table with its columns, by key: their names in the table, and the key."""
    plan = project.needed.plan
    for view in plan.views:
        if has_files(project.repo, view.source.path):
            keys = {key.name: (view.source.column(key.name), key) for key in view.keys if key.name != NO_ENTITY}
            yield view_table(project.repo, view), keys
    for source in plan.sources:
        if source.history is not None and has_files(project.repo, source.history):
            declared = {column.name: column.dtype for column in file_columns(source)}
            name = f"history of event source {source.name!r}"
            table = find_table(project.repo, source.history, name, declared)
            yield table, {column.name: (column.name, column) for column in source.columns}


_PLACE = [Column(name="file", dtype=DType.STRING), Column(name="row", dtype=DType.INT32)]
_KIND, _BUILDS = "erasures", "builds"
_VIEWS, _EVENTS = "batch/", "events/"  # begin the names of logs
_AGAIN = "then erase again"


def _list_remains(project: Workspace) -> list[str]:
    """Return what an erasure leaves by design: where it is, and until when."""
    settings, state = project.settings, project.state
    batches, runs = (
        f"for {days} days" if days else "until you delete them"
        for days in (settings.keep_quarantine_days, settings.keep_runs_days)
    )
    remains = [
        "backups, bundles, datasets and reports: where they were written, until you delete them; erase after a restore",
        "models, their statistics and reference rows without keys: in packages, until you delete their versions",
        f"rejected batches: in {state / 'quarantine'} of each machine, {batches}",
        f"examples in Data Docs: in {state / 'data_docs'} of each machine, until the next validation",
        f"values in texts of alerts and errors: in the database, until you delete them; of runs, {runs}",
        f"predictions and outcomes that servers have not shipped: in their spools, until they are shipped; {_AGAIN}",
        "decisions that sinks have delivered, also the Parquet files of sinks: until their readers delete them",
        "local copies and files of interrupted runs on other machines: until `skewless housekeeping`, a day at most",
        "former states of windowed views: in the online store, for a minute, until the next housekeeping",
        f"values of lists that policies look up by request fields: in the database, until no policy does so; {_AGAIN}",
    ]
    urls = sorted({display_url(url) for url in (settings.redis_url, settings.stream_url) if url is not None})
    remains += [
        f"files, slow log and backups of {url}: until BGREWRITEAOF, SLOWLOG RESET and BGSAVE, and until you delete them"
        for url in urls
        if is_redis(url)
    ]
    if state.database.is_shared:
        remains.append("write-ahead log and backups of the database: until its server recycles them")
        remains.append(
            f"lists that servers remember: in their {ANSWERS_FILE}, two seconds; if they are down, after a start"
        )
    if settings.storage_url is not None:
        where = display_url(settings.storage_url)
        remains.append(f"old versions of objects in {where}, if it keeps them: until a lifecycle rule deletes them")
    if settings.feature_cache_ms or settings.prediction_cache:
        remains.append(f"cached values: in servers, for {settings.feature_cache_ms:g} ms, predictions until a restart")
    for kind in sorted({source.kind for source in project.needed.plan.sources} - {"push"}):
        remains.append(f"messages in {kind.capitalize()}: until the retention of their topics ends")
    return remains


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt:
    """The result of an erasure.

    Args:
        at_us: time of its end, UTC microseconds.
        digest: of the salt and the keys; the project's record has it, too.
        salt: only the receipt has it: with the keys, it proves that the record is of this entity.
        rows, events: erased rows in the logs of views and of events.
        predictions, outcomes: removed from their logs.
        lists: versions of lists of policies that had the entity.
        online: deleted rows and states in the online store.
        built: windowed views whose states were built again.
        objects: deleted files of logs.
        waiting: files of logs that other processes still read; `skewless housekeeping` deletes them.
        messages: deleted from Redis streams.
        not_covered: what stays by design, where, and until when.
        dry_run: nothing was changed; counts are of what would be.
        error: why the run after an interrupted erasure failed; the entity is erased.
    """

    at_us: int
    digest: str
    salt: str
    rows: int
    events: int
    predictions: int
    outcomes: int
    lists: int
    online: int = 0
    built: int = 0
    objects: int = 0
    waiting: int = 0
    messages: int = 0
    not_covered: Sequence[str] = ()
    dry_run: bool = False
    error: SkewlessError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: value for name, value in vars(self).items() if name != "error"}


@audited()
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
    logs = [name for name in catalog.partitions() if name.startswith((_VIEWS, _EVENTS))]
    columns = {name: decode_columns(catalog.columns(name)) for name in logs}
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
        # Before the logs are read: a message that waits must not reach them later.
        messages = erase_messages(project.streams, parsed.owns_message, dry_run=dry_run)
        partitions = [name for name, schema in columns.items() if parsed.values(schema) is not None]
        receipt = replace(_Erasure(project, catalog, parsed, partitions, check).run(dry_run=dry_run), messages=messages)
    if dry_run:
        return receipt
    try:
        complete_backfills(project)
    except SkewlessError as error:
        receipt = replace(receipt, error=error)
    if project.settings.redis_url is None:
        project.private.rewrite_file()
    project.state.database.scrub()
    record = {name: value for name, value in receipt.as_dict().items() if name not in {"salt", "not_covered"}}
    # Last: a record without a receipt proves nothing.
    Records(project.state.database, _KIND).add("project", record)
    return receipt


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
        self._list_names = find_lists(project, entity)
        self._lists = self._erase_lists(dry_run=True)
        self._pending, self._backfills = Documents(state.database, _KIND), Documents(state.database, BACKFILLS)
        # Views of other entities, whose rows may name this one; a run writes all rows of one with a backfill anyway.
        views = [view for view in project.needed.plan.views if self._backfills.get(view.partition) is None]
        self._others = {view.partition: view for view in views if not entity.owns_keys(view.keys)}
        self._online = self._built = 0
        self._replaced: list[StoredObject] = []

    def run(self, *, dry_run: bool) -> ErasureReceipt:
        with closing(open_online_store(self._project.redis_url)) as store:
            if dry_run:
                self._count_online(store.get)
                return self._receipt(dry_run=True)
            self._erase_accepted(store)
            self._erase_lists(dry_run=False)
            # Outcomes first: after an interruption, their predictions are still there to find them.
            self._replaced += self._outcomes.erase()
            # Before they are removed, so that no replay misses them, also after an interruption.
            places = self._predictions.keys(_PLACE).to_pylist()
            ErasedPredictions(self._project.state.database).add((each["file"], each["row"]) for each in places)
            self._replaced += self._predictions.erase()
            # Before this process reads the logs for the states, so that it does not count as their reader.
            objects = self._delete_objects()
            self._restore(store)
            self._build(store)
        return self._receipt(objects=objects)

    def _erase_accepted(self, store: OnlineStore) -> None:
        for partition, rows in self._accepted.items():
            if not rows.rows:
                continue
            self._check()
            is_own = partition.startswith(_VIEWS) and partition not in self._others
            if partition in self._others:
                # Until `_restore`: after an interruption, the next run writes all rows of the view again.
                self._backfills.put(partition, {})
            elif is_own:
                # Online first: after an interruption, the log still has the keys.
                self._online += self._delete_view(store, partition, rows)
            else:
                source = partition.split("/")[1]
                with self._pending.edit(_BUILDS, []) as sources:
                    sources[:] = sorted({*sources, source})
                self._delete_states(store, source, [rows], live=True)
            self._replaced += rows.erase()
            if is_own:
                # A repair from the log may have written a row again meanwhile.
                self._online += self._delete_view(store, partition, rows)

    def _count_online(self, get: Callable[[Sequence[bytes]], list[bytes | None]]) -> None:
        """Count the entity's online rows and states, and views to build; not those of versions that nothing needs."""
        found = SimpleNamespace(remove=lambda keys: sum(value is not None for value in get(keys)), delete=lambda _: 0)
        store, sources = cast("OnlineStore", found), set(self._pending.get(_BUILDS) or [])
        for partition, rows in self._accepted.items():
            if rows.rows and partition.startswith(_EVENTS):
                sources.add(source := partition.split("/")[1])
                self._delete_states(store, source, [rows], live=True)
            elif rows.rows and partition not in self._others:
                self._online += self._delete_view(store, partition, rows)
        views, generations = self._project.needed.plan.windows, self._project.streams.generations
        self._built = sum(view.source in sources and bool(generations.list_all(view)) for view in views)

    def _erase_lists(self, *, dry_run: bool) -> int:
        lists, now_us = EntityLists(self._project.state.database), self._project.clock.now_us()
        owns = self._entity.owns_value
        return sum(lists.erase(name, owns, now_us=now_us, dry_run=dry_run) for name in self._list_names)

    def _delete_view(self, store: OnlineStore, partition: str, found: LoggedEntity) -> int:
        """Delete the online rows of a view's version; return how many there were."""
        needed = self._project.needed.plan
        view = next((each for each in needed.views if each.partition == partition), None)
        if view is None:
            # No reader needs this version. If one does later, the next run fills it from the log.
            return store.delete(f"sk:{needed.project}:{partition.rpartition('-')[2]}:")
        return store.remove(_encode(KeyCodec(needed.project, view), found.keys(view.keys)))

    def _restore(self, store: OnlineStore) -> None:
        """Let the rows of other entities be the log's, which lost the rows with the name of the entity."""
        for partition in sorted(self._others.keys() & self._accepted.keys()):
            view = self._others[partition]
            keys = self._accepted[partition].keys(view.keys)
            if keys.num_rows:
                self._online += open_parity(self._project).restore(view, keys, store)
                self._backfills.delete(partition)

    def _build(self, store: OnlineStore) -> None:
        """Build the states of the sources with erased events, also of an interrupted erasure, and delete the entity's.

        A failure leaves the sources recorded: the next erasure of any entity continues.
        """
        streams = self._project.streams
        for source in list(self._pending.get(_BUILDS) or []):
            found = [rows for name, rows in self._accepted.items() if name.startswith(f"{_EVENTS}{source}/")]
            for view in self._project.needed.plan.windows:
                if view.source == source and streams.generations.list_all(view):
                    Backfiller(streams=streams, store=store).build(view)
                    self._built += 1
            # Workers may have written states of former generations, which servers read for a minute, again meanwhile.
            self._delete_states(store, source, found, live=False)
            self._retire_unneeded(store, source)
            with self._pending.edit(_BUILDS, []) as sources:
                sources[:] = [each for each in sources if each != source]

    def _delete_states(self, store: OnlineStore, source: str, found: Sequence[LoggedEntity], *, live: bool) -> None:
        """Delete the entity's own states; those of other entities with its events stay until they are built again."""
        for view in self._project.needed.plan.windows:
            if view.source != source or not self._entity.owns_keys(view.keys):
                continue
            for item in self._project.streams.generations.list_all(view):
                if live or item.stage != "live":
                    codec = KeyCodec(self._project.needed.plan.project, view, item.number)
                    self._online += sum(store.remove(_encode(codec, rows.keys(view.keys))) for rows in found)

    def _retire_unneeded(self, store: OnlineStore, source: str) -> None:
        """Delete the states of views of a source that are not needed any more."""
        needed = self._project.needed
        for name, body in Documents(self._project.state.database, "generations").list_all().items():
            view, _, view_hash = name.rpartition("-")
            parts = {part for item in body["generations"] for part in item["partitions"]}
            if view_hash not in needed.readers and any(part.startswith(f"{_EVENTS}{source}/") for part in parts):
                life = ViewLifecycle(name=view, hash=view_hash, source=source, stage="unneeded", since_us=0)
                self._project.streams.retirement(lambda: self._project.needed, store).delete_states(life)

    def _delete_objects(self) -> int:
        """Delete the replaced objects and their local copies, unless a process reads them; return how many."""
        delete_results(self._project.state)
        delete_label_rows(self._project.state)
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
            lists=self._lists,
            online=self._online,
            built=self._built,
            objects=objects,
            waiting=len(self._catalog.list_removed()),
            not_covered=_list_remains(self._project),
            dry_run=dry_run,
        )

    def _count(self, prefix: str) -> int:
        return sum(rows.rows for name, rows in self._accepted.items() if name.startswith(prefix))


def _encode(codec: KeyCodec, keys: pa.Table) -> list[bytes]:
    names: list[bytes] = codec.pack({name: keys[name].combine_chunks() for name in keys.column_names}).to_pylist()
    return names
