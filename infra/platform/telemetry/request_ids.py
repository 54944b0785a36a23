"""Ids of requests: a caller's own, or a new one, in replies and in the log lines of the request."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from skewless.infra.platform.telemetry.logger import log_fields

HEADER = b"x-request-id"
# Only letters, digits and a few marks, so that an id cannot break a header, a log line or a page.
_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def is_request_id(value: bytes) -> bool:
    """Return whether the value of a header is accepted as an id.

    >>> [is_request_id(value) for value in (b"7f3a-1", b"a b", b"")]
    [True, False, False]
    """
    return _ID.fullmatch(value) is not None


def find_request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the first accepted id in headers with names in lower case; empty: there is none."""
    return next((value for name, value in headers if name == HEADER and is_request_id(value)), b"")


def new_request_id() -> bytes:
    """Return a new id: 16 hexadecimal digits."""
    return os.urandom(8).hex().encode()


@contextmanager
def log_request(request_id: bytes) -> Iterator[None]:
    """Add the id to all lines that this task, and the threads that it waits for, log during the block."""
    token = log_fields.set({**log_fields.get(), "request_id": request_id.decode("ascii")})
    try:
        yield
    finally:
        log_fields.reset(token)
