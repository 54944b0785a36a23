"""HTTP/1.1 as bytes, as little of it as a load needs: requests made ready ahead, replies cut out of what arrived."""

from __future__ import annotations

from collections.abc import Mapping

_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_LENGTH = b"content-length: "


class WireError(RuntimeError):
    """A server answered with something that is no reply."""


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a POST of JSON.

    >>> post("/predict", b"{}").splitlines()[0]
    b'POST /predict HTTP/1.1'
    """
    fields = {"host": "127.0.0.1", "content-type": "application/json", "content-length": f"{len(body)}"}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {**fields, **(headers or {})}.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a GET."""
    lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in {"host": "127.0.0.1", **(headers or {})}.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def is_whole(received: bytes) -> bool:
    r"""Say whether a reply has arrived to its end, by its content length or its last chunk.

    >>> is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"), is_whole(b"HTTP/1.1 200")
    (False, False)

    Raises:
        WireError: more arrived than one reply, or the reply does not say where it ends.
    """
    end = received.find(_HEAD_END)
    if end < 0:
        return False
    start = received.find(_LENGTH, 0, end)
    head = received
    if start < 0:
        head = received[: end + 2].lower()
        start = head.find(_LENGTH)
        if start < 0:
            return _last_chunk_came(head, received)
    missing = end + 4 + int(head[start + 16 : head.index(b"\r", start)]) - len(received)
    if missing < 0:
        raise WireError(f"{-missing} bytes arrived beyond the end of a reply")
    return missing == 0


def status_of(reply: bytes) -> int:
    r"""Return the status of a reply.

    >>> status_of(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    503
    """
    return int(reply[9:12])


def body_of(reply: bytes) -> bytes:
    r"""Return the body of a whole reply.

    >>> body_of(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
    b'{}'
    """
    head, _, body = reply.partition(_HEAD_END)
    return _joined(body) if _is_chunked(head.lower() + b"\r\n") else body


def _last_chunk_came(head: bytes, received: bytes) -> bool:
    if not _is_chunked(head):
        raise WireError(f"a reply does not say where it ends: {received[:200]!r}")
    return received.endswith(_LAST_CHUNK)


def _is_chunked(head: bytes) -> bool:
    return b"transfer-encoding: chunked\r\n" in head


def _joined(chunks: bytes) -> bytes:
    parts = []
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        parts.append(rest[:length])
        chunks = rest[length + 2 :] if length else b""
    return b"".join(parts)
