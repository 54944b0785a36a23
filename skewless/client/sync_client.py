"""The client for programs of threads."""

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
    """Asks a server. One client serves several threads; each call has a connection of its own while it lasts.

    Every method raises these, and only these:

    - ``RequestError``: the server refuses the request; the words are the server's. Or the client is closed.
    - ``StoreError``: there is no server, or it cannot answer now.
    - ``BusyError``: the server has as much to do as it can.
    - ``DeadlineError``: there was no answer in time.

    Args:
        url: base URL, for example ``http://127.0.0.1:8080``.
        others: base URLs of more servers that answer alike; the next one is taken when one cannot be reached.
        key: API key; None: the one in the variable ``SKEWLESS_API_KEY``, if any; empty: none.
        limits: how long to wait.
        retries: when to repeat.
        tls: how ``https`` is spoken, for example with a client certificate; None: as Python does by itself.
        clock: seconds, monotonic.
        sleep: waits for some seconds.
        chance: even in ``[0, 1)``.

    Raises:
        RequestError: a URL or the key cannot be right.
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
        """Return the predictions of one or many rows.

        Args:
            rows: objects with every entity key and request field of the model. NaN is sent as null.
            **options: those of ``PredictOptions``.
        """
        return self._run(calls.predict_call(rows, **options))

    def predict_one(self, row: Row, **options: Unpack[PredictOptions]) -> Prediction:
        """Return the prediction of one row; the options are those of ``predict``."""
        reply = self.predict([row], **options)
        return reply.predictions[0]

    def send_events(self, source: str, events: Sequence[Row], *, event_id: str | None = None) -> int:
        """Put events into the stream of an event source; return how many, once the stream has them.

        They are judged afterwards, by the worker: one that does not fit goes to quarantine. After a ``StoreError`` or
        a ``DeadlineError`` some of them may be in the stream.

        Args:
            source: name of the event source.
            events: objects with its columns.
            event_id: the column by which the source knows an event again. Where every event has a value in it, the call
                is repeated as a prediction is; otherwise only when nothing can have been taken.
        """
        return self._run(calls.events_call(source, events, event_id))

    def feedback(self, rows: Sequence[Row]) -> int:
        """Say what came of predictions; return how many rows are kept, once the server's disk has them.

        A row that is wrong refuses all of them. A row that comes twice counts once, so a call is repeated as a
        prediction is.

        Args:
            rows: each ``{"prediction_id": ..., "label": ...}``, or ``model``, ``keys`` and ``event_time`` in the place
                of the id; besides ``value`` and ``known_at``. A later row about the same thing takes its place.
        """
        return self._run(calls.feedback_call(rows))

    def models(self) -> Models:
        """Return the models that are served, and why newer versions are not."""
        return self._run(calls.models_call())

    def model(self, name: str) -> Model:
        """Return one model that is served: its inputs, features and quality."""
        return self._run(calls.model_call(name))

    def ready(self) -> Readiness:
        """Return whether predictions are answered, or why not; a server that is not there is not ready."""
        return self._run(calls.ready_call())

    def live(self) -> bool:
        """Return whether a server answers."""
        return self._run(calls.live_call())

    def close(self) -> None:
        """Close the connections; calls under way end first, each by itself."""
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
        until = time.monotonic() + attempt.seconds
        try:
            reply = self._pools[attempt.server].urlopen(
                attempt.method,
                urlsplit(attempt.server).path + attempt.path,
                attempt.body,
                attempt.headers,
                retries=False,  # nor redirects
                timeout=Timeout(attempt.seconds),
            )
        except ClosedPoolError as error:
            raise closed_error() from error
        except (NotConnectedError, HTTPError) as error:
            stage = Stage.CONNECT if isinstance(error, NotConnectedError) else Stage.REPLY
            return AttemptFailure.of(Stage.TIME if time.monotonic() >= until else stage, error.args[-1])
        return Response(reply.status, reply.data, reply.headers.get("Retry-After", ""))
