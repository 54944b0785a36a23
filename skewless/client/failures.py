"""Outcomes of an attempt, a response or a failure, and the errors for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import orjson

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
