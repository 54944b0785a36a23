"""The place of a request in a distributed trace: W3C Trace Context's headers ``traceparent`` and ``traceresponse``."""

from __future__ import annotations

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FIRST_VERSION, _NO_VERSION = b"00", b"ff"


class TraceContext(NamedTuple):
    """One span of a trace.

    Args:
        trace_id: 128 bits, not 0.
        span_id: 64 bits, not 0.
        is_sampled: whether the sender records its span.
    """

    trace_id: int
    span_id: int
    is_sampled: bool

    def header(self) -> bytes:
        """Return the value of a header ``traceparent`` or ``traceresponse``.

        >>> TraceContext(10, 11, True).header()
        b'00-0000000000000000000000000000000a-000000000000000b-01'
        """
        return b"00-%032x-%016x-%02x" % (self.trace_id, self.span_id, self.is_sampled)


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Return the span of the sender; None: the header is invalid, which W3C Trace Context says to ignore.

    Later versions of the header may append fields.

    >>> parse_traceparent(b"00-0000000000000000000000000000000a-000000000000000b-01")
    TraceContext(trace_id=10, span_id=11, is_sampled=True)
    >>> parse_traceparent(b"00-0-0-1")
    """
    match = _TRACEPARENT.fullmatch(value)
    if match is None or match[1] == _NO_VERSION or (match[5] and match[1] == _FIRST_VERSION):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    return TraceContext(trace_id, span_id, bool(int(match[4], 16) & 1))
