"""The port of telemetry: who sends traces and metrics to a collector, if the standard variables ask for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from skewless.contract.trace_context import TraceContext
from skewless.infra.platform.host.plugins import find_plugin, require_plugin
from skewless.infra.platform.telemetry.trace import Trace

if TYPE_CHECKING:
    from prometheus_client import Metric

_PREFIX = "OTEL_"


class Tracer(Protocol):
    """Decides which requests are recorded, and sends their spans; no method but ``close`` waits for the collector."""

    def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> Trace | None:
        """Return the trace of a request, or None if it is not recorded.

        Args:
            headers: names in lower case.
        """
        ...

    def selects(self, trace_id: int) -> bool:
        """Return whether a trace that begins with this id is recorded."""
        ...

    def record(
        self,
        name: str,
        context: TraceContext,
        times_us: tuple[int, int],
        attributes: Mapping[str, Any],
        *,
        is_error: bool,
    ) -> None:
        """Send one span of work that has ended.

        Args:
            times_us: start and end, UTC microseconds.
        """
        ...

    def close(self) -> None:
        """Send the spans that wait, for a few seconds at most; the rest is dropped."""
        ...


class Reporter(Protocol):
    """Reports metrics at intervals, in a thread of its own."""

    def close(self) -> None:
        """Send the last report, for a few seconds at most."""
        ...


class Telemetry(Protocol):
    """Sends traces and metrics, the entry point ``otel`` of ``skewless.telemetry``; the caller closes what it opens.

    The entry point is called without arguments, and reads the variables: a value that the standard does not allow is
    logged and ignored.
    """

    def open_tracer(
        self, on_sent: Callable[[int], object] = ..., on_drop: Callable[[int, str], object] = ...
    ) -> Tracer | None:
        """Return a tracer; None: no variable asks for traces.

        Args:
            on_sent: called in any thread with the number of spans that the collector has.
            on_drop: called in any thread with the number of spans that were lost, and the reason.

        Raises:
            DefinitionError: a package is missing.
        """
        ...

    def report(self, read: Callable[[], Iterable[Metric]]) -> Reporter | None:
        """Begin to report metrics; None: no variable asks for it.

        Args:
            read: returns the current metrics; called in a thread.

        Raises:
            DefinitionError: a package is missing.
        """
        ...


def find_telemetry(variables: Mapping[str, str] = os.environ) -> Telemetry | None:
    """Return who sends traces and metrics; None: no variable is set, or none asks for it and nothing is installed.

    Raises:
        DefinitionError: a variable asks for it, and nothing is installed.
    """
    if not any(name.startswith(_PREFIX) for name in variables):
        return None
    find = require_plugin if is_asked_for(variables) else find_plugin
    open_telemetry: Callable[[], Telemetry] | None = find("skewless.telemetry", "otel")
    return open_telemetry() if open_telemetry is not None else None


def is_asked_for(variables: Mapping[str, str]) -> bool:
    """Return whether the standard variables switch traces or metrics on.

    >>> is_asked_for({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    True
    >>> is_asked_for({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"})
    False
    """

    def read(name: str) -> str:
        return variables.get(f"{_PREFIX}{name}", "").strip().lower()

    if read("SDK_DISABLED") == "true":
        return False
    has_endpoint = read("EXPORTER_OTLP_ENDPOINT") or read("EXPORTER_OTLP_TRACES_ENDPOINT")
    traces = read("TRACES_EXPORTER") or ("otlp" if has_endpoint else "none")
    return any(word.strip() == "otlp" for word in f"{traces},{read('METRICS_EXPORTER')}".split(","))


@contextmanager
def report_metrics(read: Callable[[], Iterable[Metric]]) -> Iterator[None]:
    """Report metrics until the end of the block, if the standard variables ask for it; see ``Telemetry.report``."""
    telemetry = find_telemetry()
    reporter = telemetry.report(read) if telemetry is not None else None
    if reporter is None:
        yield
        return
    with closing(reporter):
        yield
