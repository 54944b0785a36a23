from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from skewless.contract.errors import RequestError
from skewless.serving.http.wire_limits import BodyTooLongError
from skewless_oip.infer_route import compress_reply, decompress

TEXT = b"0123456789" * 1_000


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(gzip.compress(TEXT), b"gzip"), (zlib.compress(TEXT), b" Deflate "), (TEXT, b"identity"), (TEXT, b"")],
    ids=["gzip", "deflate", "identity", "none"],
)
def test_a_body_is_read_as_its_header_says(body: bytes, encoding: bytes) -> None:
    assert decompress(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize(("pack", "encoding"), [(gzip.compress, b"gzip"), (zlib.compress, b"deflate")])
def test_what_is_broken_is_refused(pack: Callable[[bytes], bytes], encoding: bytes) -> None:
    body = pack(TEXT)
    for broken, message in [
        (body[:-1], "is truncated before"),
        (body[:20], "is truncated before"),
        (b"", "is truncated before"),
        (body + b"x", "has bytes after"),
        (b"x" + body, "is not"),
    ]:
        with pytest.raises(RequestError, match=f"request body: {message}"):
            decompress(broken, encoding, len(TEXT))


@pytest.mark.parametrize(("pack", "encoding"), [(gzip.compress, b"gzip"), (zlib.compress, b"deflate")])
def test_what_inflates_beyond_the_limit_is_refused_before_it_does(
    pack: Callable[[bytes], bytes], encoding: bytes
) -> None:
    bomb = pack(bytes(50_000_000))
    with pytest.raises(BodyTooLongError, match="has more than 10000 bytes"):
        decompress(bomb, encoding, 10_000)
    with pytest.raises(BodyTooLongError):
        decompress(pack(TEXT), encoding, len(TEXT) - 1)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(RequestError, match=r"Content-Encoding: is unknown.*br"):
        decompress(TEXT, b"br", 100_000)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (b"gzip", b"gzip"),
        (b"gzip, deflate, br", b"gzip"),
        (b"br, Deflate;q=0.5", b"deflate"),
        (b"gzip;q=0, deflate", b"deflate"),
        (b"gzip; q=0.000", None),
        (b"br", None),
        (b"", None),
    ],
)
def test_a_long_reply_is_packed_as_the_client_accepts(accepted: bytes, encoding: bytes | None) -> None:
    body, chosen = compress_reply(TEXT, accepted)
    assert chosen == encoding
    assert (body if encoding is None else decompress(body, encoding, len(TEXT))) == TEXT


def test_a_short_reply_goes_as_it_is() -> None:
    assert compress_reply(TEXT[:4_095], b"gzip") == (TEXT[:4_095], None)
