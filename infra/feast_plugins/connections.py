"""The store behind Feast's online store: opened when first used, shared by all threads, closed once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from skewless.infra.online.port import BlockingOnlineReader, Marker, OnlineStore
from skewless.infra.online.private_server import PrivateServer
from skewless.infra.online.store import open_blocking_reader, open_online_store


class Connections:
    """The sides that write and read.

    Args:
        url: of the store; None: the private server of ``state``, started if need be.
        state: the project's state folder.
    """

    def __init__(self, url: str | None, state: Path) -> None:
        self._alone = threading.Lock()
        self._private = None if url else PrivateServer(state)
        self._url = url
        self._writer: OnlineStore | None = None
        self._reader: BlockingOnlineReader | None = None
        self._on_connect: list[Callable[[], None]] = []

    @property
    def writer(self) -> OnlineStore:
        """The side that writes, newer wins."""
        with self._alone:
            if self._writer is None:
                self._writer = open_online_store(self._address())
            return self._writer

    @property
    def reader(self) -> BlockingOnlineReader:
        """The side that reads."""
        with self._alone:
            if self._reader is None:
                self._reader = open_blocking_reader(self._address())
                self._reader.on_connect(self._connected)
            return self._reader

    def on_connect(self, work: Callable[[], None]) -> None:
        """Have something done whenever a connection was made to read over, before it is used."""
        self._on_connect.append(work)

    def get(self, keys: Sequence[bytes | None]) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; a key that is None has none.

        Raises:
            StoreError: the store is away.
        """
        named = [key for key in keys if key is not None]
        found = self.reader.get(named) if named else []
        if len(named) == len(keys):
            return found
        rows = iter(found)
        return [None if key is None else next(rows) for key in keys]

    def get_with_markers(
        self, keys: Sequence[bytes | None], names: Sequence[str]
    ) -> tuple[list[bytes | None], dict[str, Marker | None]]:
        """Return the row of each key, in order, and where each marker stands, from one round trip.

        Raises:
            StoreError: the store is away.
        """
        if not names:
            return self.get(keys), {}
        named = list(dict.fromkeys(key for key in keys if key is not None))
        found, stood = self.reader.get_with_markers(named, names)
        rows = dict(zip(named, found, strict=True))
        return [None if key is None else rows[key] for key in keys], dict(zip(names, stood, strict=True))

    @property
    def address(self) -> str:
        """The URL of the store; a private server is started if need be."""
        with self._alone:
            return self._address()

    def close(self) -> None:
        """Give the connections back; a private server goes down when nobody else uses it."""
        with self._alone:
            for opened in (self._writer, self._reader):
                if opened is not None:
                    opened.close()
            self._writer = self._reader = None
            if self._private is not None:
                self._private.release()

    def _connected(self) -> None:
        for work in self._on_connect:
            work()

    def _address(self) -> str:
        return self._private.ensure() if self._private is not None else str(self._url)
