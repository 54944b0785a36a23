"""Configures logging: text or JSON lines on stderr, with all secrets masked."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from skewless.contract.render import shorten
from skewless.infra.host.redaction import redact

_MOST_CHARS = 16_384  # of one text; few tracebacks are longer
FORMAT_VARIABLE, LEVEL_VARIABLE = "SKEWLESS_LOG", "SKEWLESS_LOG_LEVEL"
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str = "info") -> None:
    """Send structlog's events to stderr: JSON lines if ``SKEWLESS_LOG=json``, else readable lines.

    Args:
        level: lowest level that is shown, unless ``SKEWLESS_LOG_LEVEL`` names another.
    """
    number = _LEVELS.get(os.environ.get(LEVEL_VARIABLE, "").lower(), _LEVELS[level])
    as_json = os.environ.get(FORMAT_VARIABLE) == "json"
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if not as_json:
        # Plain tracebacks: rich ones print local variables, which may hold a password.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact_event,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_logger,
        cache_logger_on_first_use=False,
    )


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return an event with secrets masked and long texts shortened; every line passes this processor."""
    return {name: _redact_value(value) for name, value in event.items()}


def _redact_value(value: object) -> object:
    if isinstance(value, str):
        return shorten(redact(value), _MOST_CHARS)
    if isinstance(value, bytes):
        return shorten(redact(value.decode("latin-1")), _MOST_CHARS)
    if isinstance(value, Mapping):
        return {name: _redact_value(item) for name, item in value.items()}
    return [_redact_value(item) for item in value] if isinstance(value, list | tuple) else value


def _logger(*_: object) -> structlog.PrintLogger:
    # Looked up for each line, so that lines go to a replaced stderr (pytest replaces it, for example).
    return structlog.PrintLogger(sys.stderr)
