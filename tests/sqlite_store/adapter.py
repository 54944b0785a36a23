"""An online store in a SQLite file: a second adapter, for no user, which shows that the port is the seam."""

from __future__ import annotations

from skewless.infra.reads.online.port import OnConnect, OnlineAdapter
from skewless_dynamodb.threaded_readers import ThreadedBlockingReader, ThreadedReader
from tests.sqlite_store.database import Database
from tests.sqlite_store.store import SqliteStore

_READ_S = 30.0


def _open_reader(url: str, timeout_s: float, on_connect: OnConnect | None) -> ThreadedReader:
    return ThreadedReader(Database(url, timeout_s), timeout_s, on_connect, calls=1, size=100)


SQLITE = OnlineAdapter(
    store=SqliteStore,
    reader=_open_reader,
    blocking_reader=lambda url: ThreadedBlockingReader(Database(url, _READ_S)),
)
