"""How far log partitions have been applied, in a way that survives servers which lose writes (SEMANTICS 4.5).

A server that loses acknowledged writes loses its newest ones: a truncated append-only file, an older snapshot
and a replica that lags are all a beginning of what the server did. So a marker that stands proves that the rows
put before it stand, if they were put to the same server. Two rules follow::

    one marker on every server      rows are spread over slots, so 64 markers are spread over them
    set only where it was read      the same run id and replication id as when the work began, checked by the
                                    server itself in the step that sets the marker

After a loss the marker is an older one, and what came after it is applied again. Slots that have moved since
a marker was set took their rows to a server whose marker says nothing of them: then all is applied again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from infra.online.cluster_servers import key_slot
from infra.online.servers import Servers
from skewless.errors import StoreError

_ADVANCE = Path(__file__).with_name("advance.lua").read_text()
_STANDING = Path(__file__).with_name("standing.lua").read_text()
_SPREAD = 64
_SLOTS_EACH = 16_384 // _SPREAD
_ANY = "-"


class Markers:
    """The markers behind one address. Every method raises what redis-py raises.

    Args:
        servers: where the rows are.
        place: the address, for people.
    """

    def __init__(self, servers: Servers, place: str) -> None:
        self._servers = servers
        self._place = place
        self._advance: Any = servers.client.register_script(_ADVANCE)
        self._standing: Any = servers.client.register_script(_STANDING)
        self._began: dict[str, tuple[str | None, list[str]]] = {}

    def get(self, name: str) -> int | None:
        """Return the position up to which every server holds what was applied; None: unknown, so nothing is sure."""
        layout = self._servers.layout()
        answers = [self._standing(keys=[key]) for key in marker_keys(name, spread=layout is not None)]
        self._began[name] = layout, [identity.decode() for identity, _ in answers]
        return least([value for _, value in answers], layout)

    def set(self, name: str, seq: int) -> None:
        """Record a position, never going back.

        Raises:
            StoreError: a server is not the one any more that it was when ``get`` was last called.
        """
        layout, identities = self._began.get(name) or (self._servers.layout(), [])
        keys = marker_keys(name, spread=layout is not None)
        identities = identities or [_ANY] * len(keys)
        values = [f"{seq} {identity} {layout or _ANY}".encode() for identity in identities]
        if self._servers.write(self._advance, keys, values) < len(keys):
            raise StoreError(
                f"Redis at {self._place}",
                "was restarted or failed over while rows were put, and may have lost some",
                fix="run it again: what may be lost is put again",
            )


def marker_keys(name: str, *, spread: bool) -> list[bytes]:
    """Return the keys of a marker: one, or one in every 64th part of the slots.

    >>> len({key_slot(key) // 256 for key in marker_keys("m", spread=True)})
    64
    """
    return [marker_key_of(name, part) for part in range(_SPREAD)] if spread else [name.encode()]


def marker_key_of(name: str, part: int) -> bytes:
    """Return the key of the marker in one of the 64 parts of the slots."""
    return f"{name}:{{{_TAGS[part]}}}".encode()


def least(values: Sequence[bytes | None], layout: str | None = None) -> int | None:
    """Return the least of some stored positions; None if one is missing or was set under another layout of slots.

    >>> least([b"7", b"5"]), least([b"7", None]), least([b"7 a", b"7 b"], "a")
    (5, None, None)
    """
    positions = []
    for value in values:
        position, _, kept = (value or b"").partition(b" ")
        if not position or (layout is not None and kept.decode() != layout):
            return None
        positions.append(int(position))
    return min(positions)


def _tags() -> list[int]:
    """Return the least number for each part of the slots that, as a hash tag, lies in it."""
    found: dict[int, int] = {}
    for number in islice(count(), 10_000):
        found.setdefault(key_slot(b"%d" % number) // _SLOTS_EACH, number)
    return [found[part] for part in range(_SPREAD)]


_TAGS = tuple(_tags())
TAG_SLOTS = tuple(key_slot(b"%d" % tag) for tag in _TAGS)
