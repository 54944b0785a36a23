"""The peers of a project: Redis, database, storage and brokers, with their versions, clocks, rights and times.

Each check removes what it writes. A killed one leaves nothing in a database, a key that expires after a minute in
Redis, and a file in the folder ``staging`` of the storage, which the next run and ``skewless housekeeping`` delete.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress

from skewless.contract.errors import SkewlessError, StoreError
from skewless.contract.plan import FeaturePlan
from skewless.contract.render import count_text
from skewless.contract.settings import Settings
from skewless.infra.ingest.streams.port import require_connector
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.objects import PROBES, STAGING, ObjectStorage, find_probes
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.schema import KEYS
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.probe import CommandRights, ServerFacts
from skewless.infra.reads.online.store import open_probe
from skewless.operations.health.finding import CheckFinding, bad, doubt, from_error, good

_OLDEST = {"redis": (7, 0), "valkey": (7, 2)}
_OLDEST_POSTGRES, _OLDEST_SQLITE = 140_000, (3, 35)
_MOST_USED = 0.9
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_PROBE_BYTES = 65_536
_STORAGE_CLOCK_MS = 2_000.0  # S3 tells times in seconds
_OLD_US = 600_000_000
_MB = 1e6


def check_redis(state: ProjectState, settings: Settings, plan: FeaturePlan | None) -> Iterator[CheckFinding]:
    """Yield version, memory, persistence and rights of the online store, and of the streams' Redis if it is another."""
    online = settings.redis_url or PrivateServer(state.folder).status().url
    urls = {"redis": online, "stream redis": settings.stream_url}
    for name, url in urls.items():
        if url is None or (name != "redis" and url == online):
            continue
        try:
            opened = open_probe(url)
            if opened is None:
                continue
            with closing(opened) as probe:
                facts, rights = probe.facts(), probe.rights("project" if plan is None else plan.project)
        except SkewlessError as error:
            yield from_error(name, error)
            continue
        yield _judge_version(name, facts)
        yield _judge_memory(f"{name} memory", facts, rights)
        yield _judge_persistence(f"{name} persistence", facts)
        yield _judge_rights(f"{name} commands", rights)


def _judge_version(name: str, facts: list[ServerFacts]) -> CheckFinding:
    versions = sorted({(item.program, item.version) for item in facts})
    detail = ", ".join(f"{program} {_dotted(version)}" for program, version in versions)
    detail += f" on {count_text(len(facts), 'server')}" if len(facts) > 1 else ""
    old = [program for program, version in versions if version < _OLDEST.get(program, (0,))]
    if old:
        return bad(f"{name} version", detail, f"install {old[0]} {_dotted(_OLDEST[old[0]])} or later")
    return good(f"{name} version", detail)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _judge_memory(name: str, facts: list[ServerFacts], rights: CommandRights) -> CheckFinding:
    fullest = max(facts, key=lambda item: item.used_bytes / item.limit_bytes if item.limit_bytes else 0.0)
    detail = f"{fullest.used_bytes / _MB:,.1f} MB"
    detail += f" of maxmemory {fullest.limit_bytes / _MB:,.1f} MB" if fullest.limit_bytes else ", no maxmemory"
    fix = "raise maxmemory, or delete what else is in this Redis; then run `skewless materialize`"
    if rights.full:
        return bad(name, f"{detail}: is full and refuses writes", fix)
    if fullest.limit_bytes and fullest.used_bytes > _MOST_USED * fullest.limit_bytes:
        return doubt(name, f"{detail}: is almost full", fix)
    return good(name, detail)


def _judge_persistence(name: str, facts: list[ServerFacts]) -> CheckFinding:
    problems = [item.write_problem for item in facts if item.write_problem]
    if problems:
        return bad(name, f"the last write to its disk failed ({problems[0]})", "free disk space on the server")
    if not all(item.is_persistent for item in facts):
        fix = "set appendonly yes; after a loss, `skewless materialize` writes the rows again"
        return doubt(name, "the append-only file is off: a restart loses rows", fix)
    return good(name, "the append-only file is on")


def _judge_rights(name: str, rights: CommandRights) -> CheckFinding:
    if rights.is_replica:
        return bad(name, "the server is a replica, which takes no writes", "name the master in the URL")
    if rights.denied:
        fix = "allow them on keys sk:* (ACL SETUSER), see docs/operations.md"
        return bad(name, f"the user may not run {', '.join(rights.denied)}", fix)
    return good(name, f"all are allowed; a read takes {rights.read_ms:.1f} ms")


def check_database(database: Database, limit_ms: float) -> Iterator[CheckFinding]:
    """Yield version, rights, time of a round trip, and clock of the database; a write is rolled back."""
    if not database.exists():
        return
    try:
        yield _check_database_version(database)
        if database.is_shared and (denied := _denied_rights(database)):
            fix = "GRANT the role SELECT, INSERT, UPDATE, DELETE on all tables of the schema"
            yield bad("database rights", f"the role has no {', '.join(denied[:3])}", fix)
            return
        if database.is_shared:
            yield good("database rights", "the role may read and write all tables")
        yield _time_database(database)
        if database.is_shared:
            before = time.time_ns()
            now_us = database.now_us()
            yield _judge_offset("database clock", now_us - (before + time.time_ns()) // 2_000, limit_ms)
    except StoreError as error:
        yield from_error("database", error)


def _check_database_version(database: Database) -> CheckFinding:
    name = "database version"
    if not database.is_shared:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            return bad(name, f"SQLite {sqlite3.sqlite_version}", "install a Python with SQLite 3.35 or later")
        return good(name, f"SQLite {sqlite3.sqlite_version}, schema {database.schema_version()}")
    ((number, text),) = database.query(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')"
    )
    if number < _OLDEST_POSTGRES:
        return bad(name, f"PostgreSQL {text}", "install PostgreSQL 14 or later")
    return good(name, f"PostgreSQL {text}, schema {database.schema_version()}")


def _denied_rights(database: Database) -> list[str]:
    return [
        f"{right} on {table}"
        for table in (*KEYS, "schema_version")
        for right in _RIGHTS
        if database.query("SELECT has_table_privilege(current_user, to_regclass(?), ?)", table, right) != [(True,)]
    ]


class _RollbackError(Exception):
    """Ends a transaction that must not be written."""


def _time_database(database: Database) -> CheckFinding:
    started = time.perf_counter()
    database.execute("SELECT 1")
    read_at = time.perf_counter()
    with suppress(_RollbackError), database.transaction():
        sql = "INSERT INTO documents (kind, name, revision, body) VALUES (?, ?, 1, 'null')"
        database.execute(sql, "doctor", secrets.token_hex(8))
        raise _RollbackError
    read_ms, write_ms = (read_at - started) * 1e3, (time.perf_counter() - read_at) * 1e3
    detail = f"a read takes {read_ms:.1f} ms, a write {write_ms:.1f} ms (rolled back)"
    return good("database round trip", detail)


def _judge_offset(name: str, offset_us: int, limit_ms: float) -> CheckFinding:
    detail = f"differs from this machine's by {abs(offset_us) / 1e3:,.0f} ms, limit {limit_ms:,.0f} ms"
    if abs(offset_us) <= limit_ms * 1e3:
        return good(name, detail)
    return doubt(name, detail, "run an NTP client on both machines")


def check_storage(storage: ObjectStorage, *, is_remote: bool, limit_ms: float) -> Iterator[CheckFinding]:
    """Yield whether an object can be written, read, listed and deleted, with the time, and the storage's clock."""
    name, object_name = "storage round trip", f"{PROBES}{secrets.token_hex(8)}"
    step = "written"
    started, times = time.perf_counter(), []
    try:
        before_us = time.time_ns() // 1_000
        stored = storage.put(object_name, secrets.token_bytes(_PROBE_BYTES))
        times.append(f"write {(time.perf_counter() - started) * 1e3:.0f} ms")
        step, started = "read", time.perf_counter()
        storage.verify(stored)
        times.append(f"read {(time.perf_counter() - started) * 1e3:.0f} ms")
        step = "listed"
        listed = {item.name: item for item in storage.list_objects(STAGING)}
        step, started = "deleted", time.perf_counter()
        old = find_probes(storage, before_us - _OLD_US)
        storage.delete([object_name, *old])
        storage.delete_copy(stored)
        times.append(f"delete {(time.perf_counter() - started) * 1e3:.0f} ms")
    except StoreError as error:
        finding = from_error(name, error)
        yield bad(name, f"an object cannot be {step}: {finding.detail}", finding.fix or "correct storage_url")
        return
    yield good(name, f"64 KiB: {', '.join(times)}" + (f"; {count_text(len(old), 'leftover')} deleted" if old else ""))
    if is_remote and object_name in listed:
        offset_us = listed[object_name].modified_us - before_us
        yield _judge_offset("storage clock", offset_us, max(limit_ms, _STORAGE_CLOCK_MS))


def check_streams(plan: FeaturePlan | None, settings: Settings) -> Iterator[CheckFinding]:
    """Yield for each source with a broker of its own whether it answers, knows the stream, and is new enough."""
    for source in [] if plan is None else plan.sources:
        if source.kind == "push":
            continue
        name = f"{source.kind} {source.topic}"
        try:
            facts = require_connector(source.kind).describe(source, settings)
        except SkewlessError as error:
            yield from_error(name, error)
            continue
        if facts.doubt:
            yield doubt(name, f"{facts.detail}, {facts.doubt}", facts.fix)
        else:
            yield good(name, facts.detail)
