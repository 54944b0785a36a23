"""Logs events: text or JSON lines on stderr, with all secrets masked."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from skewless.contract.render import shorten
from skewless.contract.trace_context import parse_traceparent
from skewless.infra.platform.telemetry.redaction import redact

if TYPE_CHECKING:
    import structlog

_MOST_CHARS = 16_384  # of one text; few tracebacks are longer
FORMAT_VARIABLE, LEVEL_VARIABLE = "SKEWLESS_LOG", "SKEWLESS_LOG_LEVEL"
_TRACE_VARIABLE = "TRACEPARENT"  # set by the scheduler, or another program that traces its commands
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_default_level = "info"
# Fields of all lines of a task, such as the id of its request.
log_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))


class EventLogger:
    """Logs events with structlog, as it is configured; by default as ``configure_logging`` does.

    structlog is imported at the first event, because it imports rich: most commands log nothing.
    """

    def is_shown(self, level: str) -> bool:
        """Return whether events of a level are shown, for a caller whose fields cost time."""
        return _is_shown(level)

    def debug(self, event: str, **fields: object) -> None:
        """Log an event that helps to understand a problem of somebody else."""
        if _is_shown("debug"):
            _open_logger().debug(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """Log an event that needs no action."""
        if _is_shown("info"):
            _open_logger().info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log a problem that the process can work with."""
        if _is_shown("warning"):
            _open_logger().warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Log a failure."""
        _open_logger().error(event, **fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log a failure with the traceback of the exception that is handled."""
        _open_logger().exception(event, **fields)

    def log(self, level: int, event: str, **fields: object) -> None:
        """Log an event at a level of Python's ``logging``."""
        _open_logger().log(level, event, **fields)


def set_log_level(level: str) -> None:
    """Set the lowest level that this process shows, unless ``SKEWLESS_LOG_LEVEL`` names another."""
    global _default_level  # noqa: PLW0603 - one level for the process
    _default_level = level


def configure_logging() -> None:
    """Send all events of structlog to stderr: JSON lines if ``SKEWLESS_LOG=json``, else readable lines."""
    import structlog  # noqa: PLC0415 - see EventLogger

    structlog.configure(
        processors=_processors(),
        logger_factory=_print_logger,
        cache_logger_on_first_use=False,
        wrapper_class=structlog.make_filtering_bound_logger(_lowest_level()),
    )


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return an event with secrets masked and long texts shortened; every line passes this processor."""
    return {name: _redact_value(value) for name, value in event.items()}


def add_trace_id(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return an event with the id of the trace that this command is a part of, if it is."""
    context = parse_traceparent(os.environ.get(_TRACE_VARIABLE, "").encode())
    if context is not None:
        event.setdefault("trace_id", f"{context.trace_id:032x}")
    return event


def _lowest_level() -> int:
    return _LEVELS.get(os.environ.get(LEVEL_VARIABLE, "").lower(), _LEVELS[_default_level])


def _is_shown(level: str) -> bool:
    """Return whether events of a level are shown; the configuration of a program decides about its own."""
    if _LEVELS[level] >= _lowest_level():
        return True
    # Another thread may be importing it: then it is not configured yet, and has no such name.
    is_configured = getattr(sys.modules.get("structlog"), "is_configured", None)
    return is_configured is not None and bool(is_configured())


def _open_logger() -> structlog.typing.FilteringBoundLogger:
    import structlog  # noqa: PLC0415 - see EventLogger

    if structlog.is_configured():
        logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    else:
        # The configuration of structlog belongs to the program: a notebook may set it later.
        logger = structlog.wrap_logger(_print_logger(), processors=_processors())
    return logger.bind(**log_fields.get())


def _processors() -> list[structlog.typing.Processor]:
    import structlog  # noqa: PLC0415 - see EventLogger

    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if os.environ.get(FORMAT_VARIABLE) != "json":
        # Plain tracebacks: rich ones print local variables, which may hold a password.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        add_trace_id,
        redact_event,
        renderer,
    ]


def _redact_value(value: object) -> object:
    if isinstance(value, str):
        return shorten(redact(value), _MOST_CHARS)
    if isinstance(value, bytes):
        return shorten(redact(value.decode("latin-1")), _MOST_CHARS)
    if isinstance(value, Mapping):
        return {name: _redact_value(item) for name, item in value.items()}
    return [_redact_value(item) for item in value] if isinstance(value, list | tuple) else value


def _print_logger(*_: object) -> structlog.PrintLogger:
    import structlog  # noqa: PLC0415 - see EventLogger

    # Looked up for each line, so that lines go to a replaced stderr (pytest replaces it, for example).
    return structlog.PrintLogger(sys.stderr)
