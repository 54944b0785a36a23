"""The attempts of one call: what is sent where, when it is sent again, and what comes of it. No I/O."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import orjson

from skewless import __version__
from skewless.client.addresses import Address, Addresses
from skewless.client.calls import Call
from skewless.client.failures import Failure, Stage, error_of, failure_error, response_error, strange_reply
from skewless.client.limits import Limits
from skewless.client.retries import Budget, Retries
from skewless.client.wire import Response, request_bytes
from skewless.contract.errors import BusyError, RequestError

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")

KEY_VARIABLE = "SKEWLESS_API_KEY"
_MULTIPLE_CHOICES = 300
_TOO_MANY_REQUESTS = 429
_SERVICE_UNAVAILABLE = 503


class Core:
    """What all calls of a client share. For several threads.

    Args:
        urls: base URLs of servers that answer alike; the next one is taken when one cannot be reached.
        key: API key; None: that of the environment, if any; empty: none is sent.
        limits: how long to wait.
        retries: when to repeat.
        tls: how ``https`` is spoken; None: as Python does by itself.
        clock: seconds, monotonic.
        chance: even in ``[0, 1)``.

    Raises:
        RequestError: a URL or the key cannot be right.
    """

    def __init__(
        self,
        urls: Sequence[str],
        key: str | None,
        limits: Limits,
        retries: Retries,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.addresses = Addresses(urls)
        self.limits = limits
        self.retries = retries
        self.budget = Budget(retries)
        self.tls = tls or (_default_tls() if self.addresses.secure else None)
        self.clock = clock
        self.chance = chance
        self._headers = [f"user-agent: skewless/{__version__}", "accept: application/json", *_authorization(key)]

    def attempts(self, call: Call[T]) -> Attempts[T]:
        """Begin a call."""
        self.budget.deposit()
        return Attempts(self, call)

    def request(self, call: Call[T], address: Address, left_s: float) -> bytes:
        """Return the bytes of a call to an address."""
        headers = [f"host: {address.authority}", *self._headers]
        return request_bytes(call.method, address.prefix + call.path, headers, call.body(left_s))


def _default_tls() -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - most clients speak no TLS, and it is half of what importing this would cost

    return ssl.create_default_context()


def _authorization(given: str | None) -> list[str]:
    key = os.environ.get(KEY_VARIABLE) if given is None else given
    if not key:
        return []
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RequestError("API key", "has a character that no key has", fix="give the key as it was issued")
    return [f"authorization: Bearer {key}"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, for a connection to carry out.

    Args:
        address: where to.
        data: the bytes to send.
        connect_s: how long connecting may take, seconds.
        seconds: how long all of it may take.
        fresh: whether a connection of before is not to be trusted.
    """

    address: Address
    data: bytes = field(repr=False)  # it holds the key
    connect_s: float
    seconds: float
    fresh: bool


class Attempts(Generic[T]):
    """The attempts of one call: carry ``next`` out, then ask for a ``pause``; if there is none, for the ``result``."""

    def __init__(self, core: Core, call: Call[T]) -> None:
        self._core = core
        self._call = call
        self._until = core.clock() + min(core.limits.total_s, call.limit_s or math.inf)
        self._address = core.addresses.current
        self._made = self._unreached = 0
        self._fresh = False

    def next(self) -> Attempt:
        """Return the next attempt.

        Raises:
            RequestError: a value of the call has no JSON.
        """
        core, left = self._core, max(self._until - self._core.clock(), 1e-3)
        self._address = core.addresses.current
        return Attempt(
            self._address,
            core.request(self._call, self._address, left),
            min(core.limits.connect_s, left),
            min(core.limits.attempt_s, left),
            self._fresh,
        )

    def pause(self, outcome: Response | Failure) -> float | None:
        """Return how long to wait before the next attempt, in seconds; None: the outcome stands."""
        self._made += 1
        if isinstance(outcome, Failure):
            self._note(outcome)
        if not self._may_repeat(outcome):
            return None
        if self._made >= self._core.retries.attempts and not self._elsewhere(outcome):
            return None
        wait = self._wait(outcome)
        if self._core.clock() + wait >= self._until or not self._core.budget.withdraw():
            return None
        return wait

    def result(self, outcome: Response | Failure) -> T:
        """Return what an outcome that stands means.

        Raises:
            RequestError: the server refuses the request.
            BusyError: the server has too much to do, or the client has no connection left.
            DeadlineError: there was no reply in time.
            StoreError: there is no server, or it cannot answer now.
        """
        if isinstance(outcome, Failure):
            error = failure_error(self._address, outcome)
            if self._call.silence is None:
                raise error
            return self._call.silence(error)
        if outcome.status >= _MULTIPLE_CHOICES and outcome.status not in self._call.answers:
            raise response_error(self._address, outcome)
        try:
            return self._call.read(orjson.loads(outcome.body))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise strange_reply(self._address, outcome) from error

    def _note(self, failure: Failure) -> None:
        self._fresh = True
        self._unreached += failure.stage is Stage.CONNECT
        if failure.stage in {Stage.CONNECT, Stage.TIME}:
            self._core.addresses.leave(self._address)

    def _may_repeat(self, outcome: Response | Failure) -> bool:
        safe = self._call.safe
        if isinstance(outcome, Failure):
            return outcome.stage is Stage.CONNECT or (safe and outcome.stage is not Stage.QUEUE)
        if outcome.status in self._call.answers:
            return False
        if outcome.status == _SERVICE_UNAVAILABLE:
            return safe or error_of(outcome).get("kind") == BusyError.kind
        return outcome.status == _TOO_MANY_REQUESTS

    def _elsewhere(self, outcome: Response | Failure) -> bool:
        """Say whether nobody was there, and an address is left that this call has not tried."""
        unreached = isinstance(outcome, Failure) and outcome.stage is Stage.CONNECT
        return unreached and self._unreached < len(self._core.addresses)

    def _wait(self, outcome: Response | Failure) -> float:
        if self._elsewhere(outcome):
            return 0.0
        asked = "" if isinstance(outcome, Failure) else outcome.headers.get("retry-after", "")
        return self._core.retries.pause(self._made - 1, self._core.chance(), _seconds(asked))


def _seconds(text: str) -> float:
    """Return a ``Retry-After`` in seconds; one that is a date, as ours never is, counts as none."""
    return float(text) if text.isascii() and text.isdigit() else 0.0
