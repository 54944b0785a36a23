"""The attempts of one call: what is sent where, when it is sent again, and what comes of it. No I/O."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import orjson

from skewless import __version__
from skewless.client.addresses import Addresses
from skewless.client.calls import ApiCall
from skewless.client.failures import (
    AttemptFailure,
    Response,
    Stage,
    error_of,
    failure_error,
    response_error,
    strange_reply,
)
from skewless.client.limits import Budget, Limits, Retries
from skewless.contract.errors import BusyError, RequestError

T = TypeVar("T")

KEY_VARIABLE = "SKEWLESS_API_KEY"
_MULTIPLE_CHOICES = 300
_TOO_MANY_REQUESTS = 429
_SERVICE_UNAVAILABLE = 503


class ClientCore:
    """What all calls of a client share; the arguments are those of ``Client``. For several threads.

    Raises:
        RequestError: a URL or the key cannot be right.
    """

    def __init__(
        self,
        urls: Sequence[str],
        key: str | None,
        limits: Limits | None,
        retries: Retries | None,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.addresses = Addresses(urls)
        self.limits = limits or Limits()
        self.retries = retries or Retries()
        self.budget = Budget(self.retries)
        secure = any(url.startswith("https:") for url in self.addresses.urls)
        self.tls = tls or (ssl.create_default_context() if secure else None)
        self.clock = clock
        self.chance = chance
        self.headers = _headers(os.environ.get(KEY_VARIABLE) if key is None else key)

    def attempts(self, call: ApiCall[T]) -> Attempts[T]:
        """Begin a call."""
        self.budget.deposit()
        return Attempts(self, call)


def _headers(key: str | None) -> dict[str, str]:
    headers = {"User-Agent": f"skewless/{__version__}", "Accept": "application/json", "Accept-Encoding": "identity"}
    if not key:
        return headers
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RequestError("API key", "has a character that no key has", fix="give the key as it was issued")
    return {**headers, "Authorization": f"Bearer {key}"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, for an HTTP library to carry out.

    Args:
        server: base URL of the server.
        method: HTTP method.
        path: what follows the base URL, quoted.
        headers: by name.
        body: JSON; None: no body.
        seconds: how long all of it may take.
    """

    server: str
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)  # they hold the key
    body: bytes | None
    seconds: float


class Attempts(Generic[T]):
    """The attempts of one call: carry ``next`` out, then ask for a ``pause``; if there is none, for the ``result``."""

    def __init__(self, core: ClientCore, call: ApiCall[T]) -> None:
        self._core = core
        self._call = call
        self._until = core.clock() + min(core.limits.total_s, call.limit_s or math.inf)
        self._server = core.addresses.current
        self._made = self._unreached = 0

    def next(self) -> Attempt:
        """Return the next attempt.

        Raises:
            RequestError: a value of the call has no JSON.
        """
        core, call = self._core, self._call
        left = max(self._until - core.clock(), 1e-3)
        self._server = core.addresses.current
        body = call.body(left)
        headers = core.headers if body is None else {**core.headers, "Content-Type": "application/json"}
        return Attempt(self._server, call.method, call.path, headers, body, min(core.limits.attempt_s, left))

    def pause(self, outcome: Response | AttemptFailure) -> float | None:
        """Return how long to wait before the next attempt, in seconds; None: the outcome stands."""
        self._made += 1
        if isinstance(outcome, AttemptFailure):
            self._unreached += outcome.stage is Stage.CONNECT
            if outcome.stage in {Stage.CONNECT, Stage.TIME}:
                self._core.addresses.leave(self._server)
        if not self._may_repeat(outcome):
            return None
        if self._made >= self._core.retries.attempts and not self._elsewhere(outcome):
            return None
        wait = self._wait(outcome)
        if self._core.clock() + wait >= self._until or not self._core.budget.withdraw():
            return None
        return wait

    def result(self, outcome: Response | AttemptFailure) -> T:
        """Return what an outcome that stands means.

        Raises:
            RequestError: the server refuses the request.
            BusyError: the server has too much to do, or the client has no connection left.
            DeadlineError: there was no reply in time.
            StoreError: there is no server, or it cannot answer now.
        """
        if isinstance(outcome, AttemptFailure):
            error = failure_error(self._server, outcome)
            if self._call.silence is None:
                raise error
            return self._call.silence(error)
        if outcome.status >= _MULTIPLE_CHOICES and outcome.status not in self._call.answers:
            raise response_error(self._server, outcome)
        try:
            return self._call.read(orjson.loads(outcome.body))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise strange_reply(self._server, outcome) from error

    def _may_repeat(self, outcome: Response | AttemptFailure) -> bool:
        safe = self._call.safe
        if isinstance(outcome, AttemptFailure):
            return outcome.stage is Stage.CONNECT or (safe and outcome.stage is not Stage.QUEUE)
        if outcome.status in self._call.answers:
            return False
        if outcome.status == _SERVICE_UNAVAILABLE:
            return safe or error_of(outcome).get("kind") == BusyError.kind
        return outcome.status == _TOO_MANY_REQUESTS

    def _elsewhere(self, outcome: Response | AttemptFailure) -> bool:
        """Say whether nobody was there, and an address is left that this call has not tried."""
        unreached = isinstance(outcome, AttemptFailure) and outcome.stage is Stage.CONNECT
        return unreached and self._unreached < len(self._core.addresses.urls)

    def _wait(self, outcome: Response | AttemptFailure) -> float:
        if self._elsewhere(outcome):
            return 0.0
        asked = "" if isinstance(outcome, AttemptFailure) else outcome.retry_after
        # A date, as ours never is, counts as none.
        seconds = float(asked) if asked.isascii() and asked.isdigit() else 0.0
        return self._core.retries.pause(self._made - 1, self._core.chance(), seconds)
