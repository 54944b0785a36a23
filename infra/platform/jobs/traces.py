"""Spans of the scheduler's runs: one for each run that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b

from skewless.contract.trace_context import TraceContext
from skewless.infra.platform.jobs.run import Run
from skewless.infra.platform.telemetry.port import Tracer, find_telemetry

_FAILURES = {"failed", "lost"}


class RunTraces:
    """Sends the spans of runs, if the sampler of the scheduler's process selects them.

    The ids of a run's span follow from the run's, so that nothing must be stored between its start and its end.

    Args:
        tracer: None: tracing is off.
        project: differs between projects that share a collector.
    """

    def __init__(self, tracer: Tracer | None, project: str) -> None:
        self._tracer = tracer
        self._project = project

    def variables(self, run: Run) -> dict[str, str]:
        """Return the environment variables that tell a command its place in the trace."""
        return {} if self._tracer is None else {"TRACEPARENT": self._context(self._tracer, run).header().decode()}

    def record(self, run: Run) -> None:
        """Send the span of a run that has ended; does not wait."""
        if self._tracer is None or run.ended_us is None:
            return
        context = self._context(self._tracer, run)
        if context.is_sampled:
            job, _, subject = run.id.job.partition(" ")
            attributes = {"skewless.run": str(run.id), "skewless.job": job, "skewless.state": run.state}
            attributes |= {"skewless.subject": subject} if subject else {}
            self._tracer.record(
                f"run {job}", context, (run.started_us, run.ended_us), attributes, is_error=run.state in _FAILURES
            )

    def _context(self, tracer: Tracer, run: Run) -> TraceContext:
        text = f"{self._project}\n{run.id}\n{run.token}"
        digest = blake2b(text.encode(), digest_size=24).digest()
        trace_id, span_id = int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:], "big") or 1
        return TraceContext(trace_id, span_id, tracer.selects(trace_id))


@contextmanager
def open_run_traces(project: str) -> Iterator[RunTraces]:
    """Yield the traces of a scheduler's runs, as the standard variables say; spans that wait are sent at the end.

    Raises:
        DefinitionError: OpenTelemetry is not installed.
    """
    telemetry = find_telemetry()
    tracer = telemetry.open_tracer() if telemetry is not None else None
    if tracer is None:
        yield RunTraces(None, project)
        return
    with closing(tracer):
        yield RunTraces(tracer, project)
