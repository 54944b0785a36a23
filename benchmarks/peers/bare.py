"""The bare path from entity ids to a score: raw ASGI, one pipelined MGET a request, one C API call; no log, no metrics.

``python -m benchmarks.peers.bare PORT REDIS_PORT MODEL_FILE CARD_PREFIX CARD_FEATURES SHOP_PREFIX SHOP_FEATURES``. It
reads the rows that our materialisation wrote, of one view of cards and one of shops, and checks nothing.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import hiredis
import orjson
import uvicorn

from benchmarks.peers.single_row import single_row_scorer

Message = dict[str, Any]
_HEAD = 50
_NAN = struct.pack("<d", float("nan"))
_PLAIN = [(b"content-type", b"application/json")]


class Connection(asyncio.Protocol):
    """One connection to Redis on which all requests are pipelined."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[list[bytes]]] = deque()
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._write = cast("asyncio.Transport", transport).write

    def data_received(self, data: bytes) -> None:
        """Hand each reply to the request that waits longest."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(reply)

    def mget(self, first: bytes, second: bytes) -> asyncio.Future[list[bytes]]:
        """Read two keys."""
        self._write(b"*3\r\n$4\r\nMGET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(first), first, len(second), second))
        waiting = self._loop.create_future()
        self._waiting.append(waiting)
        return waiting


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where the numbers of one view's row go in the vector."""

    prefix: bytes
    n_features: int
    start: int

    def copy(self, row: bytes, vector: bytearray) -> None:
        """Copy a row's numbers, NaN where its bitmap says null."""
        first = _HEAD + (self.n_features + 7) // 8
        vector[self.start : self.start + 8 * self.n_features] = row[first:]
        nulls = int.from_bytes(row[_HEAD:first], "little")
        while nulls:
            lowest = nulls & -nulls
            place = self.start + 8 * (lowest.bit_length() - 1)
            vector[place : place + 8] = _NAN
            nulls ^= lowest


class App:
    """The ASGI application."""

    def __init__(self, redis_port: int, model_file: str, card: Part, shop: Part) -> None:
        self._redis_port = redis_port
        self._card, self._shop = card, shop
        self._vector = bytearray(8 * (card.n_features + shop.n_features))
        self._score = single_row_scorer(model_file, self._vector)
        self._connection: Connection | None = None

    async def __call__(
        self,
        scope: Message,  # noqa: ARG002 - ASGI's three arguments
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request for one pair."""
        connection = self._connection or await self._connect()
        row = orjson.loads((await receive())["body"])["rows"][0]
        card_key = b"%b|%d}" % (self._card.prefix, row["card_id"])
        shop_key = b"%b|%b}" % (self._shop.prefix, row["shop_id"].encode())
        card, shop = await connection.mget(card_key, shop_key)
        self._card.copy(card, self._vector)
        self._shop.copy(shop, self._vector)
        body = orjson.dumps({"scores": [self._score()]})
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [*_PLAIN, length]})
        await send({"type": "http.response.body", "body": body})

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, self._connection = await loop.create_connection(Connection, "127.0.0.1", self._redis_port)
        return self._connection


def main() -> None:
    """Serve."""
    port, redis_port, model_file, card_prefix, n_card, shop_prefix, n_shop = sys.argv[1:]
    card = Part(prefix=card_prefix.encode(), n_features=int(n_card), start=0)
    shop = Part(prefix=shop_prefix.encode(), n_features=int(n_shop), start=8 * int(n_card))
    app = App(int(redis_port), model_file, card, shop)
    uvicorn.run(
        app,
        port=int(port),
        log_level="error",
        access_log=False,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        proxy_headers=False,
        interface="asgi3",
    )


if __name__ == "__main__":
    main()
