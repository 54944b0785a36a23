"""Compressed bodies, gzip and deflate, of requests and replies."""

from __future__ import annotations

import zlib

from skewless.contract.errors import RequestError
from skewless.serving.http.wire_limits import BodyTooLongError

# zlib's window bits, which select the format.
_WINDOW = {b"gzip": 31, b"deflate": 15}
_MIN_BYTES = 4_096  # bytes; shorter replies fit into a packet or two, compressed or not
_LEVEL = 1


def decompress(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Return a decompressed request body.

    >>> decompress(zlib.compress(b"{}"), b"deflate", 10)
    b'{}'

    Args:
        encoding: value of the header Content-Encoding.
        max_bytes: maximum length of the result, bytes.

    Raises:
        RequestError: the encoding is unknown, or the body is corrupt, truncated, or has bytes after its end.
        BodyTooLongError: the result is longer than ``max_bytes``.
    """
    encoding = encoding.strip().lower()
    if encoding in {b"", b"identity"}:
        return body
    window = _WINDOW.get(encoding)
    if window is None:
        raise RequestError("Content-Encoding", "is unknown", value=encoding, fix="send gzip, deflate or no such header")
    stream = zlib.decompressobj(window)
    try:
        # One byte more than allowed shows that it is too long, however much would follow.
        result = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError("request body", f"is not {encoding.decode()}: {error}", fix="compress it again") from None
    if len(result) > max_bytes:
        raise BodyTooLongError("request body", f"has more than {max_bytes} bytes, decompressed", fix="send fewer rows")
    if not stream.eof or stream.unused_data:
        problem = "has bytes after" if stream.eof else "is truncated before"
        raise RequestError("request body", f"{problem} the end of the {encoding.decode()} data", fix="send it again")
    return result


def compress_reply(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return a reply in an encoding that the client accepts, and the encoding; a short reply stays uncompressed.

    >>> compress_reply(b"short", b"gzip")
    (b'short', None)

    Args:
        accepted: value of the header Accept-Encoding.
    """
    if len(body) < _MIN_BYTES:
        return body, None
    encoding = _choose_encoding(accepted)
    if encoding is None:
        return body, None
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW[encoding])
    return stream.compress(body) + stream.flush(), encoding


def _choose_encoding(accepted: bytes) -> bytes | None:
    weighted_names = [offer.replace(b" ", b"").lower().partition(b";q=") for offer in accepted.split(b",")]
    names = {name for name, _, weight in weighted_names if weight.rstrip(b"0") not in {b"0.", b""} or not weight}
    return next((encoding for encoding in _WINDOW if encoding in names), None)
