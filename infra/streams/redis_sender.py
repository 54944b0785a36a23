"""Puts events into a stream in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from skewless.infra.online.failures import translated
from skewless.infra.streams.redis_keys import FIELD, EventKeys
from skewless.infra.streams.redis_link import RedisLink

_CHUNK = 1_000


class RedisSender:
    """See ``EventSender``; a key chooses its partition by its CRC-32.

    Args:
        url: as in the setting ``redis_url``.
        project: whose stream it is.
        source: the name of the source of events.
        n_partitions: the same number as its readers have.
        timeout_s: how long an answer is waited for, in seconds.
    """

    def __init__(self, url: str, *, project: str, source: str, n_partitions: int, timeout_s: float = 5.0) -> None:
        keys = EventKeys(project=project, source=source)
        self._streams = [keys.stream(index) for index in range(n_partitions)]
        self._url = url
        self._link = RedisLink(url, timeout_s)
        self._turn = 0

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """See ``EventSender``."""
        with translated(self._url):
            client = self._link.client()
            for start in range(0, len(payloads), _CHUNK):
                pipe = client.pipeline(transaction=False)
                for number in range(start, min(start + _CHUNK, len(payloads))):
                    stream = self._streams[self._index(None if keys is None else keys[number])]
                    pipe.execute_command("XADD", stream, "*", FIELD, payloads[number])
                pipe.execute()

    def close(self) -> None:
        """See ``EventSender``."""
        self._link.close()

    def _index(self, key: str | None) -> int:
        if key is not None:
            return crc32(key.encode()) % len(self._streams)
        self._turn += 1
        return self._turn % len(self._streams)
