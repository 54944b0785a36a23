"""What an attempt brings: a response, or a failure; and the errors that they mean."""

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
    """What a server answered.

    Args:
        status: HTTP status.
        body: the bytes.
        retry_after: the header of that name; empty: there is none.
    """

    status: int
    body: bytes
    retry_after: str


class Stage(Enum):
    """How far an attempt came that brought no reply."""

    QUEUE = auto()
    """No connection was free; nothing was sent."""
    CONNECT = auto()
    """There is no connection; nothing was sent."""
    REPLY = auto()
    """The connection broke, or what came is no reply; the server may have done what was asked."""
    TIME = auto()
    """No reply in time; the server may have done what was asked."""


@dataclass(frozen=True)
class AttemptFailure:
    """An attempt that brought no reply: how far it came, and what is said about it, on one line."""

    stage: Stage
    detail: str

    @classmethod
    def of(cls, stage: Stage, error: object) -> AttemptFailure:
        """Return the failure that an exception means; it may repeat a line that the server sent, so it is cut."""
        return cls(stage, " ".join(str(error).split())[:_LONGEST_DETAIL])


def failure_error(server: str, failure: AttemptFailure) -> SkewlessError:
    """Return what is raised when no attempt brought a reply."""
    thing = f"server at {server}"
    if failure.stage is Stage.TIME:
        return DeadlineError(thing, "did not answer in time", fix="give more time, or see what keeps the server")
    if failure.stage is Stage.QUEUE:
        return BusyError("client", "has all its connections in use", fix="ask less at a time, or raise 'connections'")
    return StoreError(thing, f"did not answer: {failure.detail}", fix="start `skewless serve`, or see what is between")


def response_error(server: str, response: Response) -> SkewlessError:
    """Return what a reply of status 300 or above means: the server's own words where there are any."""
    said = error_of(response)
    kind = RequestError if _BAD_REQUEST <= response.status < _INTERNAL_SERVER_ERROR else StoreError
    if not said:
        return kind(
            f"server at {server}", "refused without a reason of its own", value=response.status, fix="see its log"
        )
    return _KINDS.get(said.get("kind"), kind)(
        str(said.get("thing", "request")),
        str(said.get("problem", "was refused")),
        value=said.get("value"),
        fix=str(said.get("fix", "see the log of the server")),
    )


def error_of(response: Response) -> dict[str, Any]:
    """Return the error object of a reply; empty: it has none."""
    try:
        data = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return {}
    said = data.get("error") if isinstance(data, dict) else None
    return said if isinstance(said, dict) else {}


def strange_reply(server: str, response: Response) -> StoreError:
    """Return what is raised when a reply is not what the API answers."""
    return StoreError(
        f"server at {server}",
        "answered something else than the API does",
        value=response.status,
        fix="check that the address is that of `skewless serve`, of a version like this client's",
    )


def closed_error() -> RequestError:
    """Return what is raised when a closed client is asked."""
    return RequestError("client", "is closed", fix="make a new one, or close it later")
