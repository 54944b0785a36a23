"""An online store in a SQLite file: a second adapter, for no user, which shows that the port is the seam."""

from __future__ import annotations

from skewless.infra.reads.online.port import OnlineAdapter
from tests.sqlite_store.readers import SqliteBlockingReader, SqliteReader
from tests.sqlite_store.store import SqliteStore

SQLITE = OnlineAdapter(store=SqliteStore, reader=SqliteReader, blocking_reader=SqliteBlockingReader)
