"""Logs: configured in one place, lines for people or JSON on stderr, never a secret."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from skewless.contract.render import shorten
from skewless.infra.host.redaction import redact

_MOST_CHARS = 16_384  # of one text; a traceback is seldom longer
FORMAT_VARIABLE = "SKEWLESS_LOG"


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
        logger_factory=_logger,
        cache_logger_on_first_use=False,
    )


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return an event whose texts hold no secret and are of bounded length; the processor that every line passes."""
    return {name: _redacted(value) for name, value in event.items()}


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return shorten(redact(value), _MOST_CHARS)
    if isinstance(value, bytes):
        return shorten(redact(value.decode("latin-1")), _MOST_CHARS)
    if isinstance(value, Mapping):
        return {name: _redacted(item) for name, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, list | tuple) else value


def _logger(*_: object) -> structlog.PrintLogger:
    # Looked up for each line: whoever replaces stderr gets what is logged from then on.
    return structlog.PrintLogger(sys.stderr)
