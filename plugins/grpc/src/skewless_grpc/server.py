"""The gRPC port: gRPC's core under an event loop, without a thread for each call.

A thread waits for the core's events and wakes the event loop up, which does everything else. So calls join the batches
of HTTP, a slow client holds no thread, and calls need no lock. grpcio's own servers take two to four times the CPU time
for the same call. Below them is ``grpc._cython.cygrpc``, which promises nothing:
tests/test_grpcio.py of this plug-in names each part that is used here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from grpc._cython import cygrpc

from skewless.contract.errors import BusyError, PlaceError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.serving.http.wire_limits import WireLimits
from skewless.serving.shutdown import Shutdown
from skewless_grpc.calls import GrpcCall, GrpcMethod

_REQUESTED = 128  # calls that the core may announce before the event loop asks for more
_MAX_CALLS = 4_096  # open calls of one worker; a client that opens more gets an error
_EVENTS_PER_TURN = 64  # HTTP has its turn, too
_CHECK_SECONDS = 1.0
_SETTLE_SECONDS = 0.1  # time for messages that are already in socket buffers
_LAST_SECONDS = 30.0  # for calls in progress after the server stops accepting new ones
_CANCEL_SECONDS = 5.0  # for the core to end cancelled calls
_IDLE_SECONDS = 300  # a channel reconnects with its next call
_log = EventLogger()


def channel_options(limits: WireLimits) -> list[tuple[str, int]]:
    """Return the options of gRPC's core."""
    return [
        ("grpc.max_receive_message_length", limits.body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        # Above the limit of open calls, whose error can be retried: at this limit, the core resets streams.
        ("grpc.max_concurrent_streams", 2 * _MAX_CALLS),
        ("grpc.max_connection_idle_ms", _IDLE_SECONDS * 1_000),
        ("grpc.server_handshake_timeout_ms", int(limits.request_seconds * 1_000)),
        ("grpc.keepalive_time_ms", _IDLE_SECONDS * 1_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.so_reuseport", 1),  # workers share the port; the process that reserved it has checked that it was free
    ]


class GrpcServer:
    """Serves calls; belongs to one event loop.

    Args:
        methods: by path, ``/PACKAGE.SERVICE/METHOD``.
        limits: ``request_seconds`` limits the wait for a client's message, and for its reading of a reply.
        options: of gRPC's core.
        on_check: called once per second, and when the shutdown begins.
    """

    def __init__(
        self,
        methods: Mapping[str, GrpcMethod],
        limits: WireLimits,
        options: Sequence[tuple[str, Any]],
        on_check: Callable[[], None],
    ) -> None:
        self._on_check = on_check
        self._methods = {path.encode(): method for path, method in methods.items()}
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._calls: set[GrpcCall] = set()
        self._event: Any = None
        self._is_empty = threading.Semaphore(0)
        self._stopped = asyncio.Event()
        self._queue = cygrpc.CompletionQueue()
        self._core = cygrpc.Server(tuple(options), xds=False)
        self._core.register_completion_queue(self._queue)
        self._thread = threading.Thread(target=self._pump, name="grpc", daemon=True)

    def start(self, address: str, credentials: Any = None) -> None:  # noqa: ANN401 - of grpcio
        """Listen on an address, ``HOST:PORT``.

        Args:
            credentials: of ``grpc.ssl_server_credentials``; None: without TLS.

        Raises:
            PlaceError: the address cannot be used.
        """
        arguments = () if credentials is None else (credentials._credentials,)  # noqa: SLF001 - as grpc.Server does
        port = 0
        with suppress(RuntimeError):
            port = self._core.add_http2_port(address.encode(), *arguments)
        if not port:
            raise PlaceError(f"address {address}", "cannot be used for gRPC", fix="choose another grpc_port")
        self._core.start()
        for _ in range(_REQUESTED):
            self._request_call()
        self._thread.start()

    async def run(self, shutdown: Shutdown, drain_seconds: float) -> None:
        """Serve until the shutdown; calls in progress are completed, unless the shutdown is forced."""
        maintenance = asyncio.create_task(self._maintain())
        try:
            await shutdown.begun.wait()
            self._on_check()
            await shutdown.wait_drained(drain_seconds)
        finally:
            maintenance.cancel()
            await self._stop(shutdown)

    async def _stop(self, shutdown: Shutdown) -> None:
        self._core.shutdown(self._queue, self._on_stopped)
        forced = asyncio.create_task(shutdown.forced.wait())
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait([forced, stopped], timeout=_SETTLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for call in list(self._calls):
            call.stop()
        await asyncio.wait([forced, stopped], timeout=_LAST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        self._core.cancel_all_calls()
        await asyncio.wait([stopped], timeout=_CANCEL_SECONDS)
        forced.cancel()
        if not stopped.done():  # the process ends, too
            stopped.cancel()
            _log.error("grpc_not_stopped", calls=len(self._calls))
            return
        self._queue.shutdown()
        await asyncio.to_thread(self._thread.join)
        self._core.destroy()

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            self._on_check()
            oldest_allowed = self._loop.time() - self._limits.request_seconds
            for call in list(self._calls):
                if call.client_since is not None and call.client_since < oldest_allowed:
                    call.cancel()

    def _request_call(self) -> None:
        self._core.request_call(self._queue, self._queue, self._on_call)

    def _pump(self) -> None:
        """Wait for an event and wake the event loop up, which takes all others; then wait for the next.

        The event loop polls without waiting. Passed on by this thread, each event would need a change of threads.
        """
        while True:
            self._event = self._queue.poll()
            if self._event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            self._loop.call_soon_threadsafe(self._handle_events)
            self._is_empty.acquire()

    def _handle_events(self) -> None:
        for _ in range(_EVENTS_PER_TURN):
            event, self._event = self._event, None
            try:
                event.tag(event)
            except Exception as error:  # noqa: BLE001 - a defect in one call must spare the others
                _log.error("grpc_event_failed", exc_info=error)
            self._event = self._queue.poll(0.0)
            if self._event.completion_type != cygrpc.CompletionType.operation_complete:
                self._event = None
                self._is_empty.release()
                return
        self._loop.call_soon(self._handle_events)

    def _on_call(self, event: Any) -> None:  # noqa: ANN401 - of grpcio
        if not event.success:
            return  # the server stops
        self._request_call()
        call = GrpcCall(event, self._calls.discard)
        self._calls.add(call)
        if len(self._calls) > _MAX_CALLS:
            call.fail(BusyError("the server", "has reached its limit of open calls", value=_MAX_CALLS, fix="retry"))
        else:
            call.start(self._methods.get(event.call_details.method))

    def _on_stopped(self, _: Any) -> None:  # noqa: ANN401 - of grpcio
        self._stopped.set()
