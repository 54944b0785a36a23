"""Requests are HTTP as a real parser reads it; a reply is whole at its last byte, however it was cut."""

from __future__ import annotations

from typing import Any

import httptools
import pytest

from benchmarks.http_wire import WireError, body_of, get, is_whole, post, status_of

LENGTH = b'HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 13\r\nserver: x\r\n\r\n{"score":0.5}'
LOWER = LENGTH.replace(b"Content-Length", b"content-length")
EMPTY = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7;a=b\r\n{"score\r\n6\r\n":0.5}\r\n0\r\n\r\n'


class Callbacks:
    """What a parser calls back with."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.url = self.body = b""
        self.ended = False

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended = True


def parsed(request: bytes) -> tuple[bytes, Callbacks]:
    seen = Callbacks()
    parser: Any = httptools.HttpRequestParser(seen)
    parser.feed_data(request)
    return parser.get_method(), seen


def test_a_post_carries_its_body_length_and_headers() -> None:
    method, seen = parsed(post("/predict", "ü".encode(), {"authorization": "Bearer k"}))
    assert (method, seen.url, seen.body, seen.ended) == (b"POST", b"/predict", "ü".encode(), True)
    assert seen.headers[b"content-length"] == b"2"
    assert seen.headers[b"authorization"] == b"Bearer k"


def test_a_get_has_no_body() -> None:
    method, seen = parsed(get("/metrics", {"authorization": "Bearer k"}))
    assert (method, seen.url, seen.body, seen.ended) == (b"GET", b"/metrics", b"", True)
    assert b"content-length" not in seen.headers


@pytest.mark.parametrize("reply", [LENGTH, LOWER, EMPTY, CHUNKED])
def test_a_reply_is_whole_at_its_last_byte(reply: bytes) -> None:
    assert [is_whole(reply[:cut]) for cut in range(len(reply) + 1)] == [False] * len(reply) + [True]


@pytest.mark.parametrize(("reply", "body"), [(LENGTH, b'{"score":0.5}'), (CHUNKED, b'{"score":0.5}'), (EMPTY, b"")])
def test_the_body_of_a_reply_is_joined(reply: bytes, body: bytes) -> None:
    assert body_of(reply) == body


def test_the_status_is_a_number() -> None:
    assert (status_of(LENGTH), status_of(EMPTY)) == (200, 204)


@pytest.mark.parametrize("reply", [LENGTH + b"H", b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n{}"])
def test_more_than_a_reply_and_one_without_an_end_are_refused(reply: bytes) -> None:
    with pytest.raises(WireError):
        is_whole(reply)
