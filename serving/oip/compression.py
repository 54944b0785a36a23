"""Compressed bodies: gzip and deflate, both ways."""

from __future__ import annotations

import zlib

from skewless.contract.errors import RequestError
from skewless.serving.http.wire_limits import BodyTooLongError

# Window bits that make zlib read and write each encoding.
_WINDOW = {b"gzip": 31, b"deflate": 15}
_WORTH = 4_096  # bytes; below, a packet or two, the client gains nothing
_LEVEL = 1


def inflated(body: bytes, encoding: bytes, most: int) -> bytes:
    """Return a request body as it was before it was compressed.

    >>> inflated(zlib.compress(b"{}"), b"deflate", 10)
    b'{}'

    Args:
        encoding: of the header Content-Encoding.
        most: bytes that the result may have.

    Raises:
        RequestError: the encoding is unknown, or the body is broken, cut short or followed by something.
        BodyTooLongError: the result is longer than ``most``.
    """
    encoding = encoding.strip().lower()
    if encoding in {b"", b"identity"}:
        return body
    window = _WINDOW.get(encoding)
    if window is None:
        raise RequestError("Content-Encoding", "is unknown", value=encoding, fix="send gzip, deflate or no such header")
    stream = zlib.decompressobj(window)
    try:
        result = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise RequestError("request body", f"is not {encoding.decode()}: {error}", fix="compress it again") from None
    if len(result) > most:
        raise BodyTooLongError("request body", f"has more than {most} bytes, inflated", fix="send fewer rows at once")
    if not stream.eof or stream.unused_data:
        problem = "goes on behind" if stream.eof else "is cut short before"
        raise RequestError("request body", f"{problem} the end of the {encoding.decode()} data", fix="send it whole")
    return result


def deflated(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return a reply as the client accepts it, and its encoding; short ones go as they are.

    >>> deflated(b"short", b"gzip")
    (b'short', None)

    Args:
        accepted: of the header Accept-Encoding.
    """
    if len(body) < _WORTH:
        return body, None
    encoding = _chosen(accepted)
    if encoding is None:
        return body, None
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW[encoding])
    return stream.compress(body) + stream.flush(), encoding


def _chosen(accepted: bytes) -> bytes | None:
    offers = [offer.replace(b" ", b"").lower().partition(b";q=") for offer in accepted.split(b",")]
    names = {name for name, _, weight in offers if weight.rstrip(b"0") not in {b"0.", b""} or not weight}
    return next((encoding for encoding in _WINDOW if encoding in names), None)
