"""How much is read of a request, and how much of all unfinished ones is held."""

from __future__ import annotations

from dataclasses import dataclass

from skewless.contract.errors import RequestError


class BodyTooLongError(RequestError):
    """A body is longer than is read."""


@dataclass(frozen=True, kw_only=True)
class WireLimits:
    """How much of a request is read.

    Args:
        body_bytes: longest body, but for ``longer``.
        header_bytes: the address of a request, and names and values of all its headers; the same again for its
            trailers, and for what frames its body.
        request_seconds: from the first byte of a request to its last; and how long a reply may wait to be read.
        keep_alive_seconds: how long a connection may stay without a request.
        linger_seconds: how long the rest of a refused request is taken, so that its sender gets the refusal.
        longer: longest body below some paths.
        unfinished_bytes: of all bodies together that have not come to their end, or wait for their turn.
        wait_seconds: how long a request may wait for its turn.
    """

    body_bytes: int
    header_bytes: int = 65_536
    request_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    linger_seconds: float = 1.0
    longer: tuple[tuple[str, int], ...] = ()
    unfinished_bytes: int = 268_435_456
    wait_seconds: float = 0.1

    def most(self, path: str) -> int:
        """Return the longest body of a path."""
        return next((size for start, size in self.longer if path.startswith(start)), self.body_bytes)


class BodyBudget:
    """Counts what is held of bodies that are not worked on yet, over all connections of a process.

    Args:
        most: bytes.

    >>> bodies = BodyBudget(10)
    >>> bodies.take(8), bodies.take(3), bodies.size
    (True, False, 8)
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0

    def take(self, n: int) -> bool:
        """Hold n bytes more; False: they would be too many, and are not counted."""
        if self.size + n > self.most:
            return False
        self.size += n
        return True

    def give(self, n: int) -> None:
        """Hold n bytes less."""
        self.size -= n
