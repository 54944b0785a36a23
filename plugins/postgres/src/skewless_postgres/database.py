"""A project's database in PostgreSQL, for the processes of several machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
import psycopg.conninfo
import psycopg.errors

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.database import BUSY_S, Connection, Database, Row, Value
from skewless.infra.platform.storage.durable import log_long_wait
from skewless.infra.platform.storage.schema import STEPS, Step

_DEFAULT_SCHEMA = "skewless"
_LOCK_FIX = "find its holder in pg_locks and pg_stat_activity; end it there with pg_terminate_backend, or kill it"
# A cut connection ends on both sides after about 10 s: the server frees its locks, and the client waits no longer.
_PROBES = {"idle": 4, "interval": 2, "count": 3}
_CUT_MS = 10_000
_CLIENT_PROBES = {f"keepalives_{name}": value for name, value in _PROBES.items()} | {"tcp_user_timeout": _CUT_MS}
_SERVER_PROBES = " ".join(f"-c tcp_keepalives_{name}={value}" for name, value in _PROBES.items()) + (
    f" -c tcp_user_timeout={_CUT_MS} -c client_connection_check_interval=2000"
)


class PostgresDatabase(Database):
    """A database that the processes of several machines share.

    Args:
        url: ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``; the option ``schema`` names the schema of the project.
        busy_s: the longest wait for another writer.
    """

    is_shared = True
    concatenate = "string_agg"

    def __init__(self, url: str, steps: Sequence[Step] = STEPS, busy_s: float = BUSY_S) -> None:
        self._url, self._schema = _split_schema(url)
        parts = urlsplit(self._url)
        super().__init__(f"database {parts.hostname or ''}{parts.path}", steps)
        self._busy_s = busy_s

    def exists(self) -> bool:
        """Return true: a statement finds out."""
        return True

    def scrub(self) -> None:
        """Write the tables of JSON values again, without dead rows."""
        for table in ("documents", "records"):
            self.execute(f"VACUUM (FULL) {table}")

    def now_us(self) -> int:
        """Return the time of the server."""
        return int(self.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[0][0])

    @contextmanager
    def hold_lock(self, name: str, *, shared: bool = False) -> Iterator[None]:
        """Hold a lock in a session; the server releases it when the session ends. See ``Database.hold_lock``."""
        kind, key = "_shared" if shared else "", (f"skewless {self._schema} {name}",)
        connection = self._take_idle() or self._open()  # not that of a transaction, because the session has the lock
        try:
            with self._translate_errors():
                sql = f"SELECT pg_try_advisory_lock{kind}(hashtextextended(%s, 0))"
                if connection.execute(sql, key).fetchall() != [(True,)]:
                    with log_long_wait(lock=key[0], fix=_LOCK_FIX):  # in the server's queue, however long it takes
                        connection.execute("SET lock_timeout = 0")
                        connection.execute(f"SELECT pg_advisory_lock{kind}(hashtextextended(%s, 0))", key)
                        connection.execute("RESET lock_timeout")
            yield
        except BaseException:
            connection.close()  # this frees the lock
            raise
        try:
            connection.execute(f"SELECT pg_advisory_unlock{kind}(hashtextextended(%s, 0))", key)
        except psycopg.Error:
            connection.close()  # it was lost, and so was the lock; what the block wrote is written
        else:
            self._put_back(connection)

    def _connect(self) -> Connection:
        limit_ms = int(self._busy_s * 1_000)
        # A writer whose machine was cut off is ended by the server, so it cannot block the others.
        options = f"-c lock_timeout={limit_ms} -c idle_in_transaction_session_timeout={limit_ms} {_SERVER_PROBES}"
        with self._translate_errors():
            ours = {"connect_timeout": int(self._busy_s), "options": options}
            parameters: dict[str, Any] = {**_CLIENT_PROBES, **psycopg.conninfo.conninfo_to_dict(self._url), **ours}
            connection: Connection = psycopg.connect(**parameters, autocommit=True, prepare_threshold=5)
            name = '"' + self._schema.replace('"', '""') + '"'
            if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self._schema,)).fetchall():
                with suppress(psycopg.errors.UniqueViolation):  # another process was first
                    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
            connection.execute(f"SET search_path TO {name}")
        return connection

    def _begin(self, connection: Connection) -> None:
        connection.execute("BEGIN")
        # One writer at a time, as in SQLite: a read in a transaction then decides about the write, without retries.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"skewless {self._schema}",))

    def _begin_shared(self, connection: Connection) -> None:
        connection.execute("BEGIN")

    def _begin_snapshot(self, connection: Connection) -> None:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def _run(self, connection: Connection, sql: str, values: Sequence[Value]) -> list[Row]:
        cursor = connection.execute(sql.replace("%", "%%").replace("?", "%s") if values else sql, values or None)
        return cursor.fetchall() if cursor.description else []

    def _has_version(self, connection: Connection) -> bool:
        name = f"{self._schema}.schema_version"
        sql = "SELECT 1 FROM information_schema.tables WHERE table_schema || '.' || table_name = %s"
        return bool(connection.execute(sql, (name,)).fetchall())

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            problem = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(
                self.name, f"cannot be used: {problem}", fix="start it, or correct database_url, then run again"
            ) from error


def _split_schema(url: str) -> tuple[str, str]:
    """Return a URL without the option ``schema``, and its value."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    schema = options.pop("schema", _DEFAULT_SCHEMA)
    return urlunsplit(parts._replace(query=urlencode(options))), schema
