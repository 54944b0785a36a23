"""The head of the last request on a connection, which need not be parsed when it comes again."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from skewless.serving.http.hot_routes import Handler, Header, HotCycle

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,5})\r\n", re.IGNORECASE)
_MAX_HEAD = 4_096  # bytes of a head that a connection remembers


class KnownHead(NamedTuple):
    """The head of a connection's last request: nearly all clients send it again, with another length of the body.

    The same bytes in the same state of the parser have the same meaning, so that they need not be parsed again.

    Args:
        before: the bytes before the digits of the length.
        after: the bytes after them.
        max_body: maximum length of a body.
        request: what it says: handler, path, query and headers.
    """

    before: bytes
    after: bytes
    max_body: int
    request: tuple[Handler, str, bytes, list[Header]]

    @classmethod
    def of(cls, data: bytes, cycle: HotCycle, max_head: int, max_body: int) -> Self | None:
        """Return the head of a request that is complete; None: the bytes are not one short head with its body."""
        size = data.find(b"\r\n\r\n") + 4
        match = _LENGTH.search(data[:size])
        # More digits of the length must not exceed the limit of the head either.
        if match is None or len(data) - size != int(match[1]) or size > min(_MAX_HEAD, max_head - 5):
            return None
        request = cycle.handler, cycle.path, cycle.query, cycle.headers
        return cls(data[: match.start(1)], data[match.end(1) : size], max_body, request)

    def find_body(self, data: bytes) -> int:
        r"""Return where the body begins, if the bytes are this head and one complete body; otherwise 0.

        >>> head = KnownHead(b"POST / HTTP/1.1\r\ncontent-length: ", b"\r\n\r\n", 9, (print, "/", b"", []))
        >>> [head.find_body(head.before + end) for end in (b"2\r\n\r\n{}", b"3\r\n\r\n{}", b"+2\r\n\r\n{}")]
        [38, 0, 0]
        """
        before = self.before
        if not data.startswith(before):
            return 0
        first = len(before)
        last = data.find(b"\r", first, first + 6)
        digits = data[first:last]
        start = last + len(self.after)
        is_same = last > first and digits.isdigit() and data.startswith(self.after, last)
        return start if is_same and int(digits) == len(data) - start <= self.max_body else 0
