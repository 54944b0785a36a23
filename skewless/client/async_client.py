"""The client for programs of asyncio."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from skewless.client.async_connection import AsyncConnection
from skewless.client.attempts import Attempt, Core
from skewless.client.calls import (
    Call,
    PredictOptions,
    Row,
    events_call,
    feedback_call,
    live_call,
    model_call,
    models_call,
    predict_call,
    ready_call,
)
from skewless.client.failures import Failure, Stage
from skewless.client.limits import Limits
from skewless.client.pool import Pool
from skewless.client.replies import Model, Models, Prediction, Readiness, Reply
from skewless.client.retries import Retries
from skewless.client.wire import Response, WireError

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


class AsyncClient:
    """``Client`` for asyncio: the same arguments, methods and errors. For many tasks of one event loop.

    A task that is cancelled takes its connection with it, and nothing else.

    Args:
        url: as in ``Client``.
        others: as in ``Client``.
        key: as in ``Client``.
        limits: as in ``Client``; beyond ``connections`` calls at a time, the next ones wait their turn.
        retries: as in ``Client``.
        tls: as in ``Client``.
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
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._core = Core((url, *others), key, limits or Limits(), retries or Retries(), tls, clock, chance)
        self._pool: Pool[AsyncConnection] = Pool(self._core.limits.idle_s, clock)
        self._slots = asyncio.Semaphore(self._core.limits.connections)
        self._sleep = sleep

    async def predict(self, rows: Sequence[Row], **options: Unpack[PredictOptions]) -> Reply:
        """Return the predictions of one or many rows; see ``Client.predict``."""
        return await self._run(predict_call(rows, **options))

    async def predict_one(self, row: Row, **options: Unpack[PredictOptions]) -> Prediction:
        """Return the prediction of one row; see ``Client.predict``."""
        reply = await self.predict([row], **options)
        return reply.predictions[0]

    async def send_events(self, source: str, events: Sequence[Row], *, event_id: str | None = None) -> int:
        """Put events into the stream of an event source; return how many; see ``Client.send_events``."""
        return await self._run(events_call(source, events, event_id))

    async def feedback(self, rows: Sequence[Row]) -> int:
        """Say what came of predictions; return how many rows are kept; see ``Client.feedback``."""
        return await self._run(feedback_call(rows))

    async def models(self) -> Models:
        """Return the models that are served, and why newer versions are not."""
        return await self._run(models_call())

    async def model(self, name: str) -> Model:
        """Return one model that is served: its inputs, features and quality."""
        return await self._run(model_call(name))

    async def ready(self) -> Readiness:
        """Return whether predictions are answered, or why not; a server that is not there is not ready."""
        return await self._run(ready_call())

    async def live(self) -> bool:
        """Return whether a server answers."""
        return await self._run(live_call())

    async def close(self) -> None:
        """Close the connections; calls under way end first, each by itself."""
        for connection in self._pool.close():
            await connection.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        self._pool.check_open()
        attempts = self._core.attempts(call)
        while True:
            outcome = await self._attempt(attempts.next())
            pause = attempts.pause(outcome)
            if pause is None:
                return attempts.result(outcome)
            await self._sleep(pause)

    async def _attempt(self, attempt: Attempt) -> Response | Failure:
        until = asyncio.get_running_loop().time() + attempt.seconds
        try:
            await self._slot(until)
        except TimeoutError as error:
            return Failure.of(Stage.QUEUE, error)
        try:
            return await self._exchange(attempt, until)
        finally:
            self._slots.release()

    async def _slot(self, until: float) -> None:
        if not self._slots.locked():
            await self._slots.acquire()  # at once: a timer would cost more than the rest
            return
        async with asyncio.timeout_at(until):
            await self._slots.acquire()

    async def _exchange(self, attempt: Attempt, until: float) -> Response | Failure:
        try:
            connection = await self._connection(attempt)
        except (OSError, UnicodeError) as error:
            return Failure.of(Stage.CONNECT, error)
        response = None
        try:
            async with asyncio.timeout_at(until):
                response = await connection.ask(attempt.data)
        except (OSError, WireError) as error:
            return Failure.of(Stage.REPLY, error)
        finally:
            self._pool.give_back(attempt.address, connection, keep=response is not None and response.keep)
        return response

    async def _connection(self, attempt: Attempt) -> AsyncConnection:
        kept = None if attempt.fresh else self._pool.take(attempt.address)
        if kept is not None:
            return kept
        async with asyncio.timeout(attempt.connect_s):
            return await AsyncConnection.open(attempt.address, self._core.tls)
