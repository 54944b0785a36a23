"""Client for programs with threads, and its connections.

urllib3 applies a timeout to each read, but an attempt has one deadline: connections wait until then at most.
"""

from __future__ import annotations

import io
import random
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout, connection_from_url
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ClosedPoolError, HTTPError

from skewless.client import calls
from skewless.client.attempts import Attempt, AttemptFailure, ClientCore, Response, Stage, closed_error
from skewless.client.calls import ApiCall, PredictOptions, Row
from skewless.client.limits import Limits, Retries
from skewless.client.replies import Model, Models, Prediction, Readiness, Reply

if TYPE_CHECKING:
    from skewless.contract.spec import LogPolicy

T = TypeVar("T")
_SHORTEST_S = 1e-6


class NotConnectedError(Exception):
    """The connection failed; nothing was sent."""


def connection_pool(url: str, limits: Limits, tls: ssl.SSLContext | None) -> HTTPConnectionPool:
    """Return a pool of connections to a server; a call raises ``NotConnectedError`` or an ``HTTPError``."""
    tls_options: dict[str, Any] = {}
    if tls is not None and url.startswith("https:"):
        # Without this, urllib3 would check the host name although the context does not.
        tls_options = {"ssl_context": tls, "assert_hostname": None if tls.check_hostname else False}
    pool = connection_from_url(
        url,
        timeout=limits.attempt_s,
        maxsize=limits.connections,
        connect_s=limits.connect_s,
        idle_s=limits.idle_s,
        **tls_options,
    )
    pool.ConnectionCls = _TlsConnection if tls_options else _Connection  # type: ignore[assignment]  # typed as a protocol
    return pool


class _Connection(HTTPConnection):
    """A connection on which every wait ends at the deadline of its attempt.

    urllib3 sets ``timeout`` to the remaining time twice: when the attempt begins, and before it waits for the reply.
    """

    def __init__(self, *args: Any, connect_s: float, idle_s: float, **settings: Any) -> None:  # noqa: ANN401 - urllib3's
        self._connect_s, self._idle_s = connect_s, idle_s
        self._deadline = self._used_at = 0.0
        super().__init__(*args, **settings)

    @property
    def timeout(self) -> float:
        return max(self._deadline - time.monotonic(), _SHORTEST_S)

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    @property
    def is_connected(self) -> bool:
        return time.monotonic() - self._used_at < self._idle_s and super().is_connected

    def connect(self) -> None:
        deadline = self._deadline
        self._deadline = min(deadline, time.monotonic() + self._connect_s)
        try:
            super().connect()
        except (OSError, HTTPError) as error:
            raise NotConnectedError(str(error.__cause__ or error)) from error
        self._deadline = deadline

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client has it
        if self.sock is not None:
            self.sock.settimeout(self.timeout)
        super().send(data)

    def getresponse(self) -> BaseHTTPResponse:  # type: ignore[override]
        response = super().getresponse()
        self._used_at = time.monotonic()
        return response

    def response_class(self, sock: socket.socket, *args: Any, **settings: Any) -> HTTPResponse:  # type: ignore[override]  # noqa: ANN401 - http.client's
        response = HTTPResponse(sock, *args, **settings)
        response.fp = io.BufferedReader(_Reader(self, sock, response.fp.detach()))
        return response


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Reader(io.RawIOBase):
    """Reads from a socket until the deadline of the attempt."""

    def __init__(self, connection: _Connection, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._connection, self._socket, self._raw = connection, sock, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - a buffer, which has no type before Python 3.12
        self._socket.settimeout(self._connection.timeout)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class Client:
    """Calls the API of a server. One client serves several threads; each call has its own connection while it runs.

    Every method raises these errors, and only these:

    - ``RequestError``: the server rejected the request, with the server's text; or the client is closed.
    - ``StoreError``: the server is unreachable, or temporarily unable to reply.
    - ``BusyError``: the server is overloaded.
    - ``DeadlineError``: no reply arrived in time.

    Args:
        url: base URL, for example ``http://127.0.0.1:8080``.
        others: base URLs of equivalent servers, used in turn when a server is unreachable.
        key: API key; None: the environment variable ``SKEWLESS_API_KEY``, if set; empty: no key.
        limits: time limits.
        retries: rules for retries.
        tls: TLS context, for example with a client certificate; None: Python's default context.
        clock: a monotonic clock, seconds.
        sleep: waits some seconds.
        chance: returns random numbers, uniform in ``[0, 1)``.

    Raises:
        RequestError: a URL or the key is invalid.
    """

    def __init__(
        self,
        url: str,
        *others: str,
        key: str | None = None,
        limits: Limits | None = None,
        retries: Retries | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._core = ClientCore((url, *others), key, limits, retries, tls, clock, chance)
        servers = self._core.addresses.urls
        self._pools = {server: connection_pool(server, self._core.limits, self._core.tls) for server in servers}
        self._closed = False
        self._sleep = sleep

    def predict(self, rows: Sequence[Row], **options: Unpack[PredictOptions]) -> Reply:
        """Return predictions for one or many rows.

        Args:
            rows: objects with all entity keys and request features of the model. NaN is sent as null.
            **options: see ``PredictOptions``.
        """
        return self._run(calls.predict_call(rows, **options))

    def predict_one(self, row: Row, **options: Unpack[PredictOptions]) -> Prediction:
        """Return the prediction for one row; the options are those of ``predict``."""
        reply = self.predict([row], **options)
        return reply.predictions[0]

    def send_events(
        self, source: str, events: Sequence[Row], *, event_id: str | None = None, log: LogPolicy = "best_effort"
    ) -> int:
        """Send events to an event source; return their number once the stream has stored them.

        The stream worker validates them later, and quarantines invalid ones. After a ``StoreError`` or a
        ``DeadlineError`` some of them may be in the stream.

        Args:
            source: name of the event source.
            events: objects with the source's columns.
            event_id: the source's id column. If every event has an id, the call is repeated like a prediction;
                otherwise only if the server cannot have accepted anything.
            log: ``required``: return once the log has them, not only the stream.
        """
        return self._run(calls.events_call(source, events, event_id, log))

    def feedback(self, rows: Sequence[Row]) -> int:
        """Send outcomes of predictions; return the number of rows once they are on the server's disk.

        One invalid row rejects all. Duplicate rows count once, so the call is repeated like a prediction.

        Args:
            rows: each ``{"prediction_id": ..., "label": ...}``, or ``model``, ``keys`` and ``event_time`` instead
                of the id; optionally ``value`` and ``known_at``. A later row for the same prediction replaces it.
        """
        return self._run(calls.feedback_call(rows))

    def models(self) -> Models:
        """Return the served models, and why newer versions are not served."""
        return self._run(calls.models_call())

    def model(self, name: str) -> Model:
        """Return one served model: its inputs, features and quality."""
        return self._run(calls.model_call(name))

    def check(self, name: str) -> dict[str, Any]:
        """Let the server make a synthetic prediction, which is not logged; return ``GET /models/{name}/check``."""
        return self._run(calls.check_call(name))

    def ready(self) -> Readiness:
        """Return whether the server is ready, or why not; an unreachable server is not ready."""
        return self._run(calls.ready_call())

    def live(self) -> bool:
        """Return whether a server responds."""
        return self._run(calls.live_call())

    def close(self) -> None:
        """Close the client; calls in progress are completed first."""
        self._closed = True
        for pool in self._pools.values():
            pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: ApiCall[T]) -> T:
        if self._closed:
            raise closed_error()
        attempts = self._core.attempts(call)
        while True:
            outcome = self._attempt(attempts.next())
            pause = attempts.pause(outcome)
            if pause is None:
                return attempts.result(outcome)
            self._sleep(pause)

    def _attempt(self, attempt: Attempt) -> Response | AttemptFailure:
        deadline = time.monotonic() + attempt.seconds
        try:
            reply = self._pools[attempt.server].urlopen(
                attempt.method,
                urlsplit(attempt.server).path + attempt.path,
                attempt.body,
                attempt.headers,
                retries=False,  # also disables redirects
                timeout=Timeout(attempt.seconds),
            )
        except ClosedPoolError as error:
            raise closed_error() from error
        except (NotConnectedError, HTTPError) as error:
            stage = Stage.CONNECT if isinstance(error, NotConnectedError) else Stage.REPLY
            return AttemptFailure.of(Stage.TIME if time.monotonic() >= deadline else stage, error.args[-1])
        return Response(reply.status, reply.data, reply.headers.get("Retry-After", ""))
