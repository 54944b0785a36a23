"""How keys are spread over servers, and bulk commands that bypass redis-py's command methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from skewless.infra.online.clients import borrow_connection, close_client
from skewless.infra.online.pooled_reader import PooledReader
from skewless.infra.online.port import Binaries
from skewless.infra.online.resp import BulkStrings, exchange, mget, script_calls

KEYS_PER_CALL = 100  # other clients wait for one call at most
WINDOW = 16  # calls without a reply, so that server and client work at the same time


# Returns the last argument of a call from its slot (None outside a cluster).
LastArgument = Callable[[int | None], bytes]


class Script(Protocol):
    """A registered script of redis-py: its text and its digest."""

    script: str
    sha: str


@dataclass(frozen=True, kw_only=True)
class ScriptReply:
    """The reply of a script for one slice of the keys.

    Args:
        places: indices of the slice's keys.
        reply: of the call.
    """

    places: Sequence[int]
    reply: Any


class SingleServer:
    """One server, or the master that Sentinel manages; ``client`` runs single commands.

    Methods raise redis-py's exceptions.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        self.client = client
        self._reader = PooledReader(client)

    def write(self, script: Script, keys: Binaries, rows: Binaries) -> int:
        """Call a script with keys and one argument per key, in slices; return the sum of the replies."""
        return sum(answer.reply for answer in self.call(script, keys, rows))

    def call(
        self, script: Script, keys: Binaries, rows: Binaries, last: LastArgument | None = None
    ) -> list[ScriptReply]:
        """Call a script with keys and one argument per key, in slices; return the reply for each slice.

        Args:
            script: the script.
            keys: shape ``(n,)``.
            rows: one argument for each key.
            last: makes one additional argument for each call.
        """
        parts = list(slices(len(keys)))
        extra = [last(None)] * len(parts) if last else ()
        calls = script_calls(script.sha.encode(), BulkStrings(keys), BulkStrings(rows), parts, extra)
        script_replies: list[ScriptReply] = []
        with borrow_connection(self.client) as connection:
            while calls:
                replies, rejected = exchange(connection, calls, WINDOW)
                done = [part for i, part in enumerate(parts) if i not in set(rejected)]
                script_replies += [
                    ScriptReply(places=range(*part), reply=reply) for part, reply in zip(done, replies, strict=True)
                ]
                # Only rejected slices are sent again.
                parts, calls = [parts[i] for i in rejected], [calls[i] for i in rejected]
                if calls:
                    # The server was restarted or emptied since the script was loaded.
                    self.client.script_load(script.script)
        return script_replies

    def read(self, keys: Binaries, extra: Sequence[bytes] = ()) -> list[bytes | None]:
        """Return the value of each key, then of ``extra``, in order, from one round trip; None: no value."""
        if not len(keys) + len(extra):
            return []
        message = mget(keys, extra)
        values = self._reader.read(message)
        if values is None:
            with borrow_connection(self.client) as connection:
                connection.send_packed_command([message])
                values = connection.read_response()
        return values

    def masters(self) -> Sequence[Any]:
        """Return a client of each master, in a stable order."""
        return (self.client,)

    def layout(self) -> str | None:
        """Return a digest of how slots are spread over masters: None, because only a cluster has slots."""
        return None

    def close(self) -> None:
        """Close all connections."""
        self._reader.close()
        close_client(self.client)


def slices(n: int, size: int = KEYS_PER_CALL, start: int = 0) -> Iterable[tuple[int, int]]:
    """Yield the bounds of slices of at most ``size``, end exclusive.

    >>> list(slices(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    return ((first, min(first + size, n)) for first in range(start, n, size))
