"""Limits of requests on the wire, and the memory budget of unfinished bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from skewless.contract.errors import RequestError
from skewless.contract.settings import Settings


class BodyTooLongError(RequestError):
    """A body is longer than its limit."""


@dataclass(frozen=True, kw_only=True)
class WireLimits:
    """Limits of a request.

    Args:
        body_bytes: maximum length of a body, except for ``longer_bodies``.
        header_bytes: maximum size of the request line with all headers; also of trailers, and of the framing of a body.
        request_seconds: maximum time from the first to the last byte of a request; also for a client to read a reply.
        keep_alive_seconds: maximum time that a connection may be idle.
        linger_seconds: time in which the rest of a rejected request is discarded, so that its client gets the error.
        longer_bodies: prefixes of paths with another maximum length.
        unfinished_bytes: maximum size of all bodies that are incomplete or wait for their turn.
        wait_seconds: maximum time that a request may wait for its turn.
    """

    body_bytes: int
    header_bytes: int = 65_536
    request_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    linger_seconds: float = 1.0
    longer_bodies: tuple[tuple[str, int], ...] = ()
    unfinished_bytes: int = 268_435_456
    wait_seconds: float = 0.1

    @classmethod
    def of(cls, settings: Settings, event_bytes: int) -> Self:
        """Return the limits of the settings; bodies with events have a limit of their own."""
        return cls(
            body_bytes=settings.body_bytes,
            header_bytes=settings.header_bytes,
            unfinished_bytes=settings.unfinished_body_bytes,
            wait_seconds=settings.max_wait_ms / 1_000,
            longer_bodies=tuple((path, event_bytes) for path in ("/events/", "/push")),
        )

    def max_body(self, path: str) -> int:
        """Return the maximum body length of a path."""
        return next((size for start, size in self.longer_bodies if path.startswith(start)), self.body_bytes)


class BodyBudget:
    """Counts the bytes of unfinished and waiting bodies, over all connections of a process.

    Args:
        max_bytes: maximum number of bytes.

    >>> bodies = BodyBudget(10)
    >>> bodies.reserve(8), bodies.reserve(3), bodies.size
    (True, False, 8)
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0

    def reserve(self, n: int) -> bool:
        """Reserve n bytes; False: they would exceed the limit, and were not reserved."""
        if self.size + n > self.max_bytes:
            return False
        self.size += n
        return True

    def release(self, n: int) -> None:
        """Release n bytes."""
        self.size -= n
