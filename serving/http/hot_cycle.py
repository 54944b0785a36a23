"""A hot request on its way through a connection."""

from __future__ import annotations

from skewless.serving.http.exchange import Handler, Header


class _Signal:
    """Stands where uvicorn wakes those who wait for more of a request: here nobody does."""

    def set(self) -> None:
        """Do nothing."""


class HotCycle:
    """A hot request, or a refusal, on its way through, with what uvicorn looks at in a request's cycle.

    A refused one is handled as soon as it is its turn, and its body is not kept.
    """

    message_event = _Signal()
    begun = False
    complete = False
    disconnected = False
    expects = False
    handled = False
    refused = False
    response_complete = False
    rested_since = 0.0

    def __init__(self, handler: Handler, path: str, query: bytes, headers: list[Header], *, keep_alive: bool) -> None:
        self.handler = handler
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
