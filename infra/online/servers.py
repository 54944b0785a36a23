"""How keys are spread over servers, and the bulk calls that go past redis-py's command methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from skewless.infra.online.clients import close_client, lent
from skewless.infra.online.pooled_reader import PooledReader
from skewless.infra.online.port import Binaries
from skewless.infra.online.resp import BulkStrings, exchange, mget, script_calls

KEYS_PER_CALL = 100  # what other clients wait for at most
WINDOW = 16  # calls under way, so that server and client work at the same time


# Given the slot that a call goes to (None where there are no slots), returns its last argument.
Last = Callable[[int | None], bytes]


class Script(Protocol):
    """A registered script of redis-py: its text and its digest."""

    script: str
    sha: str


@dataclass(frozen=True, kw_only=True)
class ScriptReply:
    """What a script replied for some of the keys.

    Args:
        places: which of the keys it was called with, in their order.
        reply: of one call.
    """

    places: Sequence[int]
    reply: Any


class Servers(Protocol):
    """The servers behind one address; ``client`` sends single commands to the right one.

    Every method raises what redis-py raises.
    """

    client: Any

    def write(self, script: Script, keys: Binaries, rows: Binaries) -> int:
        """Call a script of keys and as many arguments on all of them, in parts; return the sum of the replies."""
        ...

    def call(self, script: Script, keys: Binaries, rows: Binaries, last: Last | None = None) -> list[ScriptReply]:
        """Call a script of keys and as many arguments on all of them, in parts; return each part's reply.

        Args:
            last: makes one more argument for each call.
        """
        ...

    def read(self, keys: Binaries, more: Sequence[bytes] = ()) -> list[bytes | None]:
        """Return the value of each key, and of some more, in order, from one round trip; None: no value."""
        ...

    def masters(self) -> Sequence[Any]:
        """Return a client of each server that takes writes, in a stable order."""
        ...

    def layout(self) -> str | None:
        """Return a digest of how the slots are dealt out; the same after a failover; None where there are no slots."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...


class SingleServer:
    """One server, known by its address or as the master that sentinels name."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        self.client = client
        self._lanes = PooledReader(client)

    def write(self, script: Script, keys: Binaries, rows: Binaries) -> int:
        """Call a script of keys and as many arguments on all of them, in parts; return the sum of the replies."""
        return sum(answer.reply for answer in self.call(script, keys, rows))

    def call(self, script: Script, keys: Binaries, rows: Binaries, last: Last | None = None) -> list[ScriptReply]:
        """Call a script of keys and as many arguments on all of them, in parts; return each part's reply."""
        parts = list(slices(len(keys)))
        more = [last(None)] * len(parts) if last else ()
        calls = script_calls(script.sha.encode(), BulkStrings(keys), BulkStrings(rows), parts, more)
        answers: list[ScriptReply] = []
        with lent(self.client) as connection:
            while calls:
                replies, again = exchange(connection, calls, WINDOW)
                done = [part for i, part in enumerate(parts) if i not in set(again)]
                answers += [
                    ScriptReply(places=range(*part), reply=reply) for part, reply in zip(done, replies, strict=True)
                ]
                parts, calls = [parts[i] for i in again], [calls[i] for i in again]
                if calls:
                    # A server that was restarted or emptied meanwhile.
                    self.client.script_load(script.script)
        return answers

    def read(self, keys: Binaries, more: Sequence[bytes] = ()) -> list[bytes | None]:
        """Return the value of each key, and of some more, in order, from one round trip; None: no value."""
        if not len(keys) + len(more):
            return []
        message = mget(keys, more)
        values = self._lanes.read(message)
        if values is None:
            with lent(self.client) as connection:
                connection.send_packed_command([message])
                values = connection.read_response()
        return values

    def masters(self) -> Sequence[Any]:
        """Return the one client."""
        return (self.client,)

    def layout(self) -> str | None:
        """Return None: there are no slots."""
        return None

    def close(self) -> None:
        """Give the connections back."""
        self._lanes.close()
        close_client(self.client)


def slices(n: int, size: int = KEYS_PER_CALL, start: int = 0) -> Iterable[tuple[int, int]]:
    """Yield the bounds of parts of at most ``size``, end exclusive.

    >>> list(slices(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    return ((first, min(first + size, n)) for first in range(start, n, size))
