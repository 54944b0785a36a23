"""The head of the last request on a connection, which is not parsed again when it comes again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from skewless.serving.http.hot_routes import Handler, Header, HotCycle, SendReply

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,5})\r\n", re.IGNORECASE)
_MAX_HEAD = 4_096  # bytes of a head that a connection remembers


class KnownHead(NamedTuple):
    """The head of a connection's last request: nearly all clients send it again, with another length of the body.

    The same bytes in the same state of the parser have the same meaning, so parsing them again would change nothing.

    Args:
        before: the bytes before the digits of the length.
        after: the bytes after them.
        max_body: maximum length of a body.
        handler, path, query: what it says.
        headers: with the length of the last body.
    """

    before: bytes
    after: bytes
    max_body: int
    handler: Handler
    path: str
    query: bytes
    headers: Sequence[Header]

    @classmethod
    def of(cls, data: bytes, cycle: HotCycle, max_head: int, max_body: int) -> Self | None:
        """Return the head of a request, if the bytes are one short head and its body, and may come again in this form.

        Args:
            data: the bytes that have been parsed.
            cycle: the request.
            max_head: maximum number of bytes of a head.
            max_body: maximum length of its body.
        """
        if not cycle.complete or not cycle.keep_alive or cycle.is_rejected:
            return None
        # An id of a request comes only once; a client that waits for `100 Continue` sends its body later.
        if cycle.request_id or cycle.expects_continue:
            return None
        size = data.find(b"\r\n\r\n") + 4
        match = _LENGTH.search(data[:size])
        # More digits of the length must not exceed the limit of the head either.
        if match is None or len(data) - size != int(match[1]) or size > min(_MAX_HEAD, max_head - 5):
            return None
        before, after = data[: match.start(1)], data[match.end(1) : size]
        return cls(before, after, max_body, cycle.handler, cycle.path, cycle.query, cycle.headers)

    def find_body(self, data: bytes) -> int:
        r"""Return where the body begins, if the bytes are this head and one complete body; otherwise 0.

        >>> head = KnownHead(b"POST / HTTP/1.1\r\ncontent-length: ", b"\r\n\r\n", 9, print, "/", b"", [])
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

    def new_request(self, data: bytes, start: int, send_reply: SendReply) -> HotCycle:
        """Return the complete request in bytes that are this head, with their own length, and a body at ``start``."""
        headers = self.headers
        length = (b"content-length", data[len(self.before) : start - len(self.after)])
        if length not in headers:
            headers = [length if header[0] == length[0] else header for header in headers]
        cycle = HotCycle(self.handler, self.path, self.query, headers, send_reply, keep_alive=True)
        cycle.body, cycle.complete, cycle.is_started = data[start:], True, True
        return cycle
