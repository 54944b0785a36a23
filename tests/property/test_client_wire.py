"""Replies as the client reads them, in any pieces, against the standard library's reader."""

from __future__ import annotations

import contextlib
import io
import socket
from http.client import HTTPResponse
from itertools import pairwise
from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st

from skewless.client.wire import Response, ResponseReader, WireError

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True).filter(
    lambda name: name not in {"connection", "content-length", "te", "trailer", "transfer-encoding", "upgrade"}
)
VALUES = st.text("abcXYZ 0123456789/;=,", max_size=12).map(str.strip)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=4)
STATUSES = st.integers(200, 599).filter(lambda status: status not in {204, 304})
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"


class FromBytes:
    """As much of a socket as ``http.client`` wants."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def oracle(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return what ``http.client`` reads."""
    response = HTTPResponse(cast("socket.socket", FromBytes(data)))
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, response.read()


def read(data: bytes, cuts: list[int]) -> Response | None:
    """Return what our reader makes of bytes that come in pieces, and then end."""
    reader, response = ResponseReader(), None
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for first, last in pairwise(edges):
        response = reader.feed(data[first:last])
    return response or reader.end()


def framed(status: int, headers: dict[str, str], parts: list[bytes], framing: str) -> bytes:
    """Return a reply whose body is framed in one of the three ways of HTTP/1.1."""
    body = b"".join(parts)
    told = {"length": f"Content-Length: {len(body)}\r\n", "chunked": "Transfer-Encoding: chunked\r\n", "end": ""}[
        framing
    ]
    if framing == "chunked":
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*filter(None, parts), b""))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}{told}\r\n".encode() + body


@given(
    STATUSES,
    HEADERS,
    st.lists(st.binary(max_size=20), max_size=4),
    st.sampled_from(["length", "chunked", "end"]),
    st.sampled_from([b"", INTERIM]),
    st.lists(st.integers(0, 400), max_size=6),
)
@example(200, {}, [], "length", b"", [])
@example(200, {}, [b"\r\n\r\n"], "chunked", INTERIM, list(range(400)))
def test_a_reply_is_read_as_the_standard_library_reads_it(
    status: int, headers: dict[str, str], parts: list[bytes], framing: str, before: bytes, cuts: list[int]
) -> None:
    data = framed(status, headers, parts, framing)
    response = read(before + data, cuts)
    assert response is not None
    assert (response.status, response.headers, response.body) == oracle(data)
    assert response.keep == (framing != "end")


@given(HEADERS, st.binary(min_size=1, max_size=30), st.sampled_from(["length", "chunked"]), st.data())
def test_a_reply_that_is_cut_short_is_none(
    headers: dict[str, str], body: bytes, framing: str, data: st.DataObject
) -> None:
    whole = framed(200, headers, [body], framing)
    assert read(whole[: data.draw(st.integers(0, len(whole) - 1))], []) is None


@given(st.binary(max_size=100))
@example(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 500 X\r\n\r\n")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(WireError):
        response = ResponseReader().feed(data)
        assert response is None or (response.status, response.body, response.keep) == (200, b"ab", False)
