"""The adapter of the online store for URLs ``dynamodb://REGION/TABLE``."""

from __future__ import annotations

from skewless.infra.reads.online.port import OnConnect, OnlineAdapter
from skewless_dynamodb.store import DynamoStore
from skewless_dynamodb.table import ITEMS_PER_CALL, DynamoTable
from skewless_dynamodb.threaded_readers import ThreadedBlockingReader, ThreadedReader

_READ_S = 10.0
_CALLS = 16


def _open_reader(url: str, timeout_s: float, on_connect: OnConnect | None) -> ThreadedReader:
    return ThreadedReader(DynamoTable(url, timeout_s), timeout_s, on_connect, calls=_CALLS, size=ITEMS_PER_CALL)


DYNAMODB = OnlineAdapter(
    store=DynamoStore,
    reader=_open_reader,
    blocking_reader=lambda url: ThreadedBlockingReader(DynamoTable(url, _READ_S)),
)
