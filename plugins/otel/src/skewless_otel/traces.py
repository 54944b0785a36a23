"""Traces of requests: whether one is recorded is decided first; its spans are made after the reply, in a thread.

::

    event loop   OtlpTracer.begin ─> Trace.add, add, ... ─> finish ─> queue (bounded) ─┐
    thread                                                            spans, protobuf, OTLP <┘
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skewless.contract.trace_context import TraceContext, parse_traceparent
from skewless.infra.platform.host.priority import lower_priority
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.platform.telemetry.trace import Trace
from skewless_otel.otlp import OtlpSender, encode_attributes, encode_resource, encode_scope
from skewless_otel.settings import OtelSettings, Sampling

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_TRACEPARENT = b"traceparent"
# Numbers of OTLP, so that this module does not import its messages.
_INTERNAL: Span.SpanKind.ValueType = 1  # type: ignore[assignment]
_SERVER: Span.SpanKind.ValueType = 2  # type: ignore[assignment]
_ERROR: Status.StatusCode.ValueType = 2  # type: ignore[assignment]
_CLOSE_S = 3.0  # at the end of the process, for the spans that wait
_log = EventLogger()
_Count = Callable[[int], object]
_CountDropped = Callable[[int, str], object]


class OtlpTracer:
    """Decides which requests are recorded, and sends their spans.

    Args:
        settings: with a target for traces.
        on_sent: called in the thread with the number of spans that the collector has.
        on_drop: called with the number of spans that were lost and the reason: ``full`` (the queue), ``collector`` (it
            is down, or refuses them), ``shutdown``. In the thread or by ``finish``.

    Raises:
        DefinitionError: OpenTelemetry's messages are not installed.
    """

    def __init__(
        self,
        settings: OtelSettings,
        on_sent: _Count = lambda _: None,
        on_drop: _CountDropped = lambda _n, _reason: None,
    ) -> None:
        if settings.traces is None:
            raise TypeError(settings)
        self._settings = settings
        self._sampling: Sampling = settings.sampling
        self._bound = settings.sampling.bound
        # Not the global generator, which a program may seed.
        self._bits = random.Random().getrandbits  # noqa: S311 - ids are not secret
        self._on_sent, self._on_drop = on_sent, on_drop
        self._sender = OtlpSender("traces", settings.traces)
        self._queue: deque[Trace] = deque()
        self._queued = self._sending = 0  # spans
        self._condition = threading.Condition()
        self._close_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> Trace | None:
        """Return the trace of a request, or None if it is not recorded; that takes half a microsecond.

        A valid ``traceparent`` decides, unless the sampler ignores callers; else the rate does.

        Args:
            headers: names in lower case.
        """
        parent = None
        if self._settings.reads_traceparent:
            for key, value in headers:
                if key == _TRACEPARENT:
                    parent = parse_traceparent(value)
                    break
        if parent is None:
            low = self._bits(64)
            if low >= self._bound:
                return None
            return self._start(self._bits(64) << 64 | low, 0)
        trace_id = parent.trace_id
        is_sampled = parent.is_sampled if self._sampling.follows_parent else self.selects(trace_id)
        return self._start(trace_id, parent.span_id) if is_sampled else None

    def selects(self, trace_id: int) -> bool:
        """Return whether a trace that begins with this id is recorded: the same in every process with this rate."""
        return trace_id & 0xFFFF_FFFF_FFFF_FFFF < self._bound

    def record(
        self,
        name: str,
        context: TraceContext,
        times_us: tuple[int, int],
        attributes: Mapping[str, Any],
        *,
        is_error: bool,
    ) -> None:
        """Send one span of work that has ended; see ``Trace``.

        Args:
            times_us: start and end, UTC microseconds.
        """
        trace = Trace(context, 0, self._put)
        trace.name, trace.is_error, trace.is_request = name, is_error, False
        trace.attributes.update(attributes)
        trace.offset_ns, trace.started_at, trace.ended_at = times_us[0] * 1_000, 0.0, (times_us[1] - times_us[0]) / 1e6
        self._put(trace)

    def close(self) -> None:
        """Send the spans that wait, for three seconds at most; the rest is dropped."""
        with self._condition:
            self._close_at = time.monotonic() + _CLOSE_S
            self._condition.notify()
        self._sender.stop()
        self._thread.join(_CLOSE_S)
        with self._condition:
            rest, self._queue, self._queued = self._queued + self._sending, deque(), 0
        if rest:
            _log.warning("traces_dropped", spans=rest, reason="shutdown")
            self._on_drop(rest, "shutdown")
        self._sender.close()

    def _start(self, trace_id: int, parent_id: int) -> Trace:
        return Trace(TraceContext(trace_id or 1, self._bits(64) or 1, is_sampled=True), parent_id, self._put)

    def _put(self, trace: Trace) -> None:
        n = 1 + len(trace.stages)
        with self._condition:
            has_room = self._close_at is None and self._queued + n <= self._settings.queue_spans
            if has_room:
                self._queue.append(trace)
                self._queued += n
                if self._queued >= self._settings.batch_spans:
                    self._condition.notify()
        if not has_room:
            self._on_drop(n, "full")

    def _run(self) -> None:
        lower_priority()
        while True:
            with self._condition:
                if self._close_at is None and self._queued < self._settings.batch_spans:
                    self._condition.wait(self._settings.delay_s)
                is_closed = self._close_at is not None
            for batch in self._batches():
                self._send(batch)
            if is_closed:
                return

    def _batches(self) -> Iterator[list[Trace]]:
        """Take batches from the queue until it is empty."""
        while True:
            batch, n = [], 0
            with self._condition:
                while self._queue and n < self._settings.batch_spans:
                    batch.append(self._queue.popleft())
                    n += 1 + len(batch[-1].stages)
                self._queued -= n
                self._sending = n
            if not batch:
                return
            yield batch

    def _send(self, batch: Sequence[Trace]) -> None:
        n = sum(1 + len(trace.stages) for trace in batch)
        left_s = None if self._close_at is None else self._close_at - time.monotonic()
        try:
            is_sent = self._sender.send(encode_traces(batch, self._settings.resource), left_s)
        except Exception:  # noqa: BLE001 - a defect must not end the thread
            _log.exception("traces_failed", spans=n)
            is_sent = False
        if is_sent:
            self._on_sent(n)
        else:
            self._on_drop(n, "collector")


def encode_traces(traces: Sequence[Trace], resource: Mapping[str, str]) -> bytes:
    """Return traces as a request of OTLP."""
    # An import takes a tenth of a second: here it is the thread's.
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: PLC0415

    request = ExportTraceServiceRequest()
    process = request.resource_spans.add(resource=encode_resource(resource))
    scope = process.scope_spans.add(scope=encode_scope())
    for trace in traces:
        _add_spans(scope.spans, trace)
    return bytes(request.SerializeToString())


def _add_spans(spans: RepeatedCompositeFieldContainer[Span], trace: Trace) -> None:
    """Add the span of a request or run, then those of its stages; made where they are, they are not copied."""
    context, offset_ns = trace.context, trace.offset_ns
    trace_id, span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    span = spans.add(
        trace_id=trace_id,
        span_id=span_id,
        name=trace.name,
        kind=_SERVER if trace.is_request else _INTERNAL,
        start_time_unix_nano=int(trace.started_at * 1e9) + offset_ns,
        end_time_unix_nano=int(trace.ended_at * 1e9) + offset_ns,
        attributes=encode_attributes(trace.attributes),
    )
    if trace.parent_id:
        span.parent_span_id = trace.parent_id.to_bytes(8, "big")
    if trace.is_error:
        span.status.code = _ERROR
    for i, (name, start_s, end_s) in enumerate(trace.stages, 1):
        spans.add(
            trace_id=trace_id,
            # Different from the request's by construction; across traces, as random as that one.
            span_id=(context.span_id ^ i).to_bytes(8, "big"),
            parent_span_id=span_id,
            name=name,
            kind=_INTERNAL,
            start_time_unix_nano=int(start_s * 1e9) + offset_ns,
            end_time_unix_nano=int(end_s * 1e9) + offset_ns,
        )
