"""Client for asyncio programs."""

from __future__ import annotations

import asyncio
import math
import random
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import aiohttp
from yarl import URL

from skewless.client import calls
from skewless.client.attempts import Attempt, AttemptFailure, ClientCore, Response, Stage, closed_error
from skewless.client.calls import ApiCall, PredictOptions, Row
from skewless.client.limits import Limits, Retries
from skewless.client.replies import Model, Models, Prediction, Readiness, Reply

if TYPE_CHECKING:
    import ssl

    from skewless.contract.spec import LogPolicy

T = TypeVar("T")

_LARGE = 1 << 20  # bytes; aiohttp warns about larger bodies that are not iterators


class AsyncClient:
    """``Client`` for asyncio: the same arguments, methods and errors. For many tasks of one event loop.

    Cancelling a task closes its connection and affects nothing else.

    Args:
        limits: as in ``Client``; when ``connections`` calls are active, further calls wait.
        sleep: waits some seconds.

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
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._core = ClientCore((url, *others), key, limits, retries, tls, clock, chance)
        self._session: aiohttp.ClientSession | None = None
        self._active = 0
        self._closed = False
        self._slots = asyncio.Semaphore(self._core.limits.connections)
        self._sleep = sleep

    async def predict(self, rows: Sequence[Row], **options: Unpack[PredictOptions]) -> Reply:
        """Return predictions for one or many rows; see ``Client.predict``."""
        return await self._run(calls.predict_call(rows, **options))

    async def predict_one(self, row: Row, **options: Unpack[PredictOptions]) -> Prediction:
        """Return the prediction for one row; see ``Client.predict``."""
        reply = await self.predict([row], **options)
        return reply.predictions[0]

    async def send_events(
        self, source: str, events: Sequence[Row], *, event_id: str | None = None, log: LogPolicy = "best_effort"
    ) -> int:
        """Send events to an event source; return their number; see ``Client.send_events``."""
        return await self._run(calls.events_call(source, events, event_id, log))

    async def feedback(self, rows: Sequence[Row]) -> int:
        """Send outcomes of predictions; return the number of stored rows; see ``Client.feedback``."""
        return await self._run(calls.feedback_call(rows))

    async def models(self) -> Models:
        """Return the served models, and why newer versions are not served."""
        return await self._run(calls.models_call())

    async def model(self, name: str) -> Model:
        """Return one served model: its inputs, features and quality."""
        return await self._run(calls.model_call(name))

    async def check(self, name: str) -> dict[str, Any]:
        """Let the server make a synthetic prediction, which is not logged; see ``Client.check``."""
        return await self._run(calls.check_call(name))

    async def ready(self) -> Readiness:
        """Return whether the server is ready, or why not; an unreachable server is not ready."""
        return await self._run(calls.ready_call())

    async def live(self) -> bool:
        """Return whether a server responds."""
        return await self._run(calls.live_call())

    async def close(self) -> None:
        """Close the client; calls in progress are completed first."""
        self._closed = True
        if not self._active and self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: ApiCall[T]) -> T:
        if self._closed:
            raise closed_error()
        attempts = self._core.attempts(call)
        self._active += 1
        try:
            while True:
                outcome = await self._attempt(attempts.next())
                pause = attempts.pause(outcome)
                if pause is None:
                    return attempts.result(outcome)
                await self._sleep(pause)
        finally:
            self._active -= 1
            if self._closed:
                await self.close()

    async def _attempt(self, attempt: Attempt) -> Response | AttemptFailure:
        stage = Stage.QUEUE
        try:
            # The wait for a slot counts against the time of the attempt, but is reported as a stage of its own.
            async with asyncio.timeout(attempt.seconds), self._slots:
                stage = Stage.TIME
                return await self._exchange(attempt)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, UnicodeError) as error:
            return AttemptFailure.of(Stage.CONNECT, error)
        except TimeoutError as error:
            return AttemptFailure.of(stage, error)
        except (aiohttp.ClientError, OSError) as error:
            return AttemptFailure.of(Stage.REPLY, error)

    async def _exchange(self, attempt: Attempt) -> Response:
        body: bytes | AsyncIterator[bytes] | None = attempt.body
        headers = attempt.headers
        if attempt.body is not None and len(attempt.body) > _LARGE:
            body, headers = _iterate_once(attempt.body), {**headers, "Content-Length": str(len(attempt.body))}
        async with self._get_session().request(
            attempt.method,
            # The path is quoted already.
            URL(attempt.server + attempt.path, encoded=True),
            data=body,
            headers=headers,
            # A redirect could take the API key to another host.
            allow_redirects=False,
        ) as reply:
            return Response(reply.status, await reply.read(), reply.headers.get("Retry-After", ""))

    def _get_session(self) -> aiohttp.ClientSession:
        """Return the session, created with the first call, because it needs a running event loop."""
        if self._session is None:
            limits = self._core.limits
            # Not limited here: the semaphore limits the connections, so that waiting for one does not look like
            # connecting.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=limits.idle_s, ssl=self._core.tls or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                # By default aiohttp rounds longer timeouts up to whole seconds.
                timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_s, ceil_threshold=math.inf),
            )
            # A forgotten session warns even without connections; its connector warns only if it has connections.
            weakref.finalize(self, self._session.detach)
        return self._session


async def _iterate_once(body: bytes) -> AsyncIterator[bytes]:
    yield body
