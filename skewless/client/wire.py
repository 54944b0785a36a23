"""HTTP/1.1 without I/O: the bytes of a request, and a reply from the bytes that come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import httptools

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_FIRST_FINAL_STATUS = 200


class WireError(ValueError):
    """What came is no HTTP reply."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered.

    Args:
        status: HTTP status.
        headers: by lower-case name; of several with one name, the last.
        body: the bytes.
        keep: whether the connection can carry another request.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    keep: bool


def request_bytes(method: str, target: str, headers: Sequence[str], body: bytes | None) -> bytes:
    r"""Return a request as it goes over the wire.

    Args:
        method: HTTP method.
        target: path, quoted.
        headers: lines without their end; checked by whoever made them.
        body: JSON; None: no body.

    >>> request_bytes("GET", "/models", ["host: a"], None)
    b'GET /models HTTP/1.1\r\nhost: a\r\n\r\n'
    """
    lines = [f"{method} {target} HTTP/1.1", *headers]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join((*lines, "\r\n")).encode("ascii") + (body or b"")


class ResponseReader:
    """Reads one reply, in whatever pieces it comes; the methods named ``on_`` are for httptools."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._in_body = False
        self._response: Response | None = None

    def feed(self, data: bytes) -> Response | None:
        """Take the next bytes; return the reply once it is whole.

        Raises:
            WireError: they are not HTTP.
        """
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._response is None:
                problem = f"no HTTP reply: {error}"
                raise WireError(problem) from error
        return self._response

    def end(self) -> Response | None:
        """Take the end of the connection; return the reply if that is what ends it, else None."""
        if self._in_body and not self._headers.keys() & _FRAMING:
            self._finish(keep=False)
        return self._response

    def on_message_begin(self) -> None:
        """Begin a reply: interim ones (1xx) may come before the final one, and none may follow it."""
        if self._response is not None:
            self._response = replace(self._response, keep=False)
        else:
            self._headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Note whether a body can follow."""
        self._in_body = self._parser.get_status_code() >= _FIRST_FINAL_STATUS

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """End the reply."""
        if self._in_body and self._response is None:
            self._finish(keep=self._parser.should_keep_alive())

    def _finish(self, *, keep: bool) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._headers.items()}
        self._response = Response(self._parser.get_status_code(), headers, b"".join(self._body), keep)
