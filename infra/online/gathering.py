"""The values of one request, while they come from several nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Value: TypeAlias = bytes | Exception | None


class Gathering:
    """Puts each node's reply where the request wants it.

    Args:
        n: how many values there will be.
        parts: how many replies bring them.
        finished: called when all are there, with the values, an error in the place of each that did not come, and
            whether there is any.
    """

    __slots__ = ("_failed", "_finished", "_left", "_values")

    def __init__(self, n: int, parts: int, finished: Callable[[list[Value], bool], None]) -> None:
        self._values: list[Value] = [None] * n
        self._left = parts
        self._failed = False
        self._finished = finished

    def take(self, places: Sequence[int], reply: Any) -> None:  # noqa: ANN401 - replies have any type
        """Take the reply to one part: the values for its places, or the error that came for all of them."""
        values = self._values
        if isinstance(reply, Exception):
            self._failed = True
            reply = [reply] * len(places)
        for place, value in zip(places, reply, strict=True):
            values[place] = value
        self._left -= 1
        if not self._left:
            self._finished(values, self._failed)
