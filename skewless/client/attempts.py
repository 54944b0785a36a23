"""Attempts of one call: their servers, requests, retries, outcomes and errors. Without I/O."""

from __future__ import annotations

import math
import os
import re
import ssl
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import orjson

from skewless import __version__
from skewless.client.calls import ApiCall
from skewless.client.limits import Budget, Limits, Retries
from skewless.contract.errors import BusyError, DeadlineError, RequestError, SkewlessError, StoreError

_KINDS: dict[object, type[SkewlessError]] = {kind.kind: kind for kind in (BusyError, DeadlineError)}
_BAD_REQUEST = 400
_INTERNAL_SERVER_ERROR = 500
_LONGEST_DETAIL = 300


@dataclass(frozen=True, slots=True)
class Response:
    """Reply of a server.

    Args:
        status: HTTP status.
        body: the bytes.
        retry_after: value of the header Retry-After; empty: no such header.
    """

    status: int
    body: bytes
    retry_after: str


class Stage(Enum):
    """How far an attempt without a reply came."""

    QUEUE = auto()
    """No connection was free; nothing was sent."""
    CONNECT = auto()
    """The connection failed; nothing was sent."""
    REPLY = auto()
    """The connection broke, or the reply is not HTTP; the server may have executed the call."""
    TIME = auto()
    """No reply arrived in time; the server may have executed the call."""


@dataclass(frozen=True)
class AttemptFailure:
    """An attempt without a reply: how far it came, and details in one line."""

    stage: Stage
    detail: str

    @classmethod
    def of(cls, stage: Stage, error: object) -> AttemptFailure:
        """Return the failure for an exception; its text is shortened, because it may contain a line of the server."""
        return cls(stage, " ".join(str(error).split())[:_LONGEST_DETAIL])


def failure_error(server: str, failure: AttemptFailure) -> SkewlessError:
    """Return the error of a call whose attempts all failed."""
    thing = f"server at {server}"
    if failure.stage is Stage.TIME:
        return DeadlineError(thing, "did not reply in time", fix="raise the timeout, or check the load of the server")
    if failure.stage is Stage.QUEUE:
        return BusyError("client", "has no free connection", fix="make fewer calls at a time, or raise 'connections'")
    return StoreError(thing, f"did not reply: {failure.detail}", fix="start `skewless serve`, or check the network")


def response_error(server: str, response: Response) -> SkewlessError:
    """Return the error for a reply of status 300 or above, with the server's text if it has any."""
    error = read_error(response)
    kind = RequestError if _BAD_REQUEST <= response.status < _INTERNAL_SERVER_ERROR else StoreError
    if not error:
        return kind(
            f"server at {server}", "rejected the request without a reason", value=response.status, fix="check its log"
        )
    return _KINDS.get(error.get("kind"), kind)(
        str(error.get("thing", "request")),
        str(error.get("problem", "was rejected")),
        value=error.get("value"),
        fix=str(error.get("fix", "check the log of the server")),
    )


def read_error(response: Response) -> dict[str, Any]:
    """Return the error object of a reply; empty: the reply has none."""
    try:
        data = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return {}
    error = data.get("error") if isinstance(data, dict) else None
    return error if isinstance(error, dict) else {}


def unexpected_reply_error(server: str, response: Response) -> StoreError:
    """Return the error for a reply that is not a reply of the API."""
    return StoreError(
        f"server at {server}",
        "sent an unexpected reply",
        value=response.status,
        fix="check that the address is that of `skewless serve`, in a version like this client's",
    )


def closed_error() -> RequestError:
    """Return the error of a call on a closed client."""
    return RequestError("client", "is closed", fix="create another client, or close this one later")


T = TypeVar("T")

KEY_VARIABLE = "SKEWLESS_API_KEY"
_MULTIPLE_CHOICES = 300
_TOO_MANY_REQUESTS = 429
_SERVICE_UNAVAILABLE = 503
# Stricter than ``urlsplit``, so that every HTTP library accepts it.
_BASE_URL = re.compile(
    r"https?://(\[[0-9a-f:.]+(%[0-9a-z]+)?\]|[a-z0-9_.-]+)(:[0-9]+)?(/[a-z0-9_.~!$&'()*+,;=:@%-]*)*",
    re.ASCII | re.IGNORECASE,
)


def base_url(url: str) -> str:
    """Return a base URL without a slash at its end.

    Raises:
        RequestError: the URL is invalid. The error does not contain the URL, which may have a password.

    >>> base_url("https://scores.example/v1/")
    'https://scores.example/v1'
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.port != 0 and _BASE_URL.fullmatch(url)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise RequestError(
            "base URL of the server",
            "is not a URL of http:// or https://, host, port and path",
            fix="give a URL like http://127.0.0.1:8080, and a key as key=",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


class Addresses:
    """Base URLs of one service, in order, one of which is in use. For several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(map(base_url, urls))
        self._index = 0
        self._lock = threading.Lock()

    @property
    def current(self) -> str:
        """Return the URL in use."""
        return self.urls[self._index]

    def switch_from(self, url: str) -> None:
        """Switch to the next URL, unless another thread has already switched from this one."""
        with self._lock:
            if self.current == url:
                self._index = (self._index + 1) % len(self.urls)


class ClientCore:
    """State that all calls of a client share; the arguments are those of ``Client``. For several threads.

    Raises:
        RequestError: a URL or the key is invalid.
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
        uses_tls = any(url.startswith("https:") for url in self.addresses.urls)
        self.tls = tls or (ssl.create_default_context() if uses_tls else None)
        self.clock = clock
        self.chance = chance
        self.headers = _headers(os.environ.get(KEY_VARIABLE) if key is None else key)

    def attempts(self, call: ApiCall[T]) -> Attempts[T]:
        """Start a call."""
        self.budget.deposit()
        return Attempts(self, call)


def _headers(key: str | None) -> dict[str, str]:
    headers = {"User-Agent": f"skewless/{__version__}", "Accept": "application/json", "Accept-Encoding": "identity"}
    if not key:
        return headers
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RequestError("API key", "has an invalid character", fix="give the key as it was issued")
    return {**headers, "Authorization": f"Bearer {key}"}


def _trace_headers() -> dict[str, str]:
    """Return the headers of the caller's current span, if the program uses OpenTelemetry."""
    propagate = sys.modules.get("opentelemetry.propagate")  # not imported: without it there is no span
    headers: dict[str, str] = {}
    if propagate is not None:
        propagate.inject(headers)
    return headers


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, to be executed by an HTTP library.

    Args:
        server: base URL of the server.
        method: HTTP method.
        path: quoted path, relative to the base URL.
        headers: by name.
        body: JSON; None: no body.
        seconds: timeout of the attempt.
    """

    server: str
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)  # contain the API key
    body: bytes | None
    seconds: float


class Attempts(Generic[T]):
    """Attempts of one call: execute ``next``, then ask for a ``pause``; without a pause, take the ``result``."""

    def __init__(self, core: ClientCore, call: ApiCall[T]) -> None:
        self._core = core
        self._call = call
        self._deadline = core.clock() + min(core.limits.total_s, call.limit_s or math.inf)
        self._server = core.addresses.current
        self._n_attempts = self._n_unreached = 0

    def next(self) -> Attempt:
        """Return the next attempt.

        Raises:
            RequestError: a value of the call cannot be converted to JSON.
        """
        core, call = self._core, self._call
        remaining_s = max(self._deadline - core.clock(), 1e-3)
        self._server = core.addresses.current
        body = call.body(remaining_s)
        headers = {**core.headers, **_trace_headers()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return Attempt(self._server, call.method, call.path, headers, body, min(core.limits.attempt_s, remaining_s))

    def pause(self, outcome: Response | AttemptFailure) -> float | None:
        """Return the seconds to wait before the next attempt; None: the outcome is final."""
        self._n_attempts += 1
        if isinstance(outcome, AttemptFailure):
            self._n_unreached += outcome.stage is Stage.CONNECT
            if outcome.stage in {Stage.CONNECT, Stage.TIME}:
                self._core.addresses.switch_from(self._server)
        if not self._may_repeat(outcome):
            return None
        if self._n_attempts >= self._core.retries.attempts and not self._has_untried_address(outcome):
            return None
        wait = self._next_pause(outcome)
        # The budget is asked last, because it is charged for the repeat.
        if self._core.clock() + wait >= self._deadline or not self._core.budget.withdraw():
            return None
        return wait

    def result(self, outcome: Response | AttemptFailure) -> T:
        """Return the result of a final outcome.

        Raises:
            RequestError: the server rejected the request.
            BusyError: the server is overloaded, or the client has no free connection.
            DeadlineError: no reply arrived in time.
            StoreError: the server is unreachable, or temporarily unable to reply.
        """
        if isinstance(outcome, AttemptFailure):
            error = failure_error(self._server, outcome)
            if self._call.on_no_reply is None:
                raise error
            return self._call.on_no_reply(error)
        if outcome.status >= _MULTIPLE_CHOICES and outcome.status not in self._call.expected_statuses:
            raise response_error(self._server, outcome)
        try:
            return self._call.read(orjson.loads(outcome.body))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise unexpected_reply_error(self._server, outcome) from error

    def _may_repeat(self, outcome: Response | AttemptFailure) -> bool:
        is_repeatable = self._call.is_repeatable
        if isinstance(outcome, AttemptFailure):
            return outcome.stage is Stage.CONNECT or (is_repeatable and outcome.stage is not Stage.QUEUE)
        if outcome.status in self._call.expected_statuses:
            return False
        if outcome.status == _SERVICE_UNAVAILABLE:
            # A busy server has not begun the call, so even an unrepeatable call may be sent again.
            return is_repeatable or read_error(outcome).get("kind") == BusyError.kind
        return outcome.status == _TOO_MANY_REQUESTS

    def _has_untried_address(self, outcome: Response | AttemptFailure) -> bool:
        """Return whether the server was unreachable, and this call has not tried all addresses."""
        is_unreachable = isinstance(outcome, AttemptFailure) and outcome.stage is Stage.CONNECT
        return is_unreachable and self._n_unreached < len(self._core.addresses.urls)

    def _next_pause(self, outcome: Response | AttemptFailure) -> float:
        if self._has_untried_address(outcome):
            return 0.0
        retry_after = "" if isinstance(outcome, AttemptFailure) else outcome.retry_after
        # A date, which our server never sends, counts as none.
        seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return self._core.retries.pause(self._n_attempts - 1, self._core.chance(), seconds)
