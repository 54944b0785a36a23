"""Logs: configured in one place, lines for people or JSON on stderr, never a password."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

FORMAT_VARIABLE = "SKEWLESS_LOG"
# Up to the last @ of a word: a password may hold one.
_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)\S*@")


def configure_logging() -> None:
    """Send structlog's events to stderr: JSON lines if ``SKEWLESS_LOG=json``, else lines for people."""
    as_json = os.environ.get(FORMAT_VARIABLE) == "json"
    shown: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if not as_json:
        # Plain tracebacks: rich ones print local variables, which may hold a password.
        plain = structlog.dev.plain_traceback
        shown = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact_event,
            shown,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def redact(text: str) -> str:
    """Return a text with the user and password of every URL in it masked.

    >>> redact("Redis at redis://user:p@ss@host:6379/0 is away")
    'Redis at redis://***@host:6379/0 is away'
    """
    return _PASSWORD.sub(r"\1***@", text)


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return an event whose texts hold no password; the processor that every line passes."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event
