"""Client for programs with threads."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, TypeVar, Unpack
from urllib.parse import urlsplit

from urllib3 import Timeout
from urllib3.exceptions import ClosedPoolError, HTTPError

from skewless.client import calls
from skewless.client.attempts import Attempt, ClientCore
from skewless.client.calls import ApiCall, PredictOptions, Row
from skewless.client.deadline_connection import NotConnectedError, connection_pool
from skewless.client.failures import AttemptFailure, Response, Stage, closed_error
from skewless.client.limits import Limits, Retries
from skewless.client.replies import Model, Models, Prediction, Readiness, Reply

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


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

    def send_events(self, source: str, events: Sequence[Row], *, event_id: str | None = None) -> int:
        """Send events to an event source; return their number once the stream has stored them.

        The stream worker validates them later, and quarantines invalid ones. After a ``StoreError`` or a
        ``DeadlineError`` some of them may be in the stream.

        Args:
            source: name of the event source.
            events: objects with the source's columns.
            event_id: the source's id column. If every event has an id, the call is repeated like a prediction;
                otherwise only if the server cannot have accepted anything.
        """
        return self._run(calls.events_call(source, events, event_id))

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
