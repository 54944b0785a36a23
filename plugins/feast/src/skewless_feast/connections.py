"""Connections of Feast's online store: opened on first use, shared by all threads, closed once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from skewless.infra.reads.online.port import BlockingOnlineReader, Marker, OnlineStore
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.store import open_blocking_reader, open_online_store


class Connections:
    """The writer and the reader of an online store.

    Args:
        url: URL of the store; None: the private server of ``state``, which is started if necessary.
        state: the project's state folder.
    """

    def __init__(self, url: str | None, state: Path) -> None:
        self._lock = threading.Lock()
        self._private = None if url else PrivateServer(state)
        self._url = url
        self._writer: OnlineStore | None = None
        self._reader: BlockingOnlineReader | None = None

    @property
    def writer(self) -> OnlineStore:
        """The writer: a newer row replaces an older row."""
        with self._lock:
            if self._writer is None:
                self._writer = open_online_store(self._address())
            return self._writer

    @property
    def reader(self) -> BlockingOnlineReader:
        """The reader."""
        with self._lock:
            if self._reader is None:
                self._reader = open_blocking_reader(self._address())
            return self._reader

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Call a function after each new connection of the reader, before its first read."""
        self.reader.on_connect(callback)

    def get_with_markers(
        self, keys: Sequence[bytes | None], names: Sequence[str]
    ) -> tuple[list[bytes | None], dict[str, Marker | None]]:
        """Return the row of each key, in order, None for a key that is None, and the value of each marker.

        One round trip reads them all.

        Raises:
            StoreError: the store is unreachable.
        """
        named = [key for key in keys if key is not None]
        if not names and len(named) == len(keys):
            return self.reader.get(named) if named else [], {}
        named = list(dict.fromkeys(named))
        stored, markers = self.reader.get_with_markers(named, names) if named or names else ([], [])
        rows = dict(zip(named, stored, strict=True))
        return [None if key is None else rows[key] for key in keys], dict(zip(names, markers, strict=True))

    @property
    def address(self) -> str:
        """The URL of the store; a private server is started if necessary."""
        with self._lock:
            return self._address()

    def close(self) -> None:
        """Close the connections; a private server stops if no other process uses it."""
        with self._lock:
            for side in (self._writer, self._reader):
                if side is not None:
                    side.close()
            self._writer = self._reader = None
            if self._private is not None:
                self._private.release()

    def _address(self) -> str:
        return self._private.ensure() if self._private is not None else str(self._url)
