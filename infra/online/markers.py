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

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from skewless.contract.errors import StoreError
from skewless.infra.online.cluster_servers import key_slot
from skewless.infra.online.port import LOST, Marked, Marker
from skewless.infra.online.servers import Servers

_ADVANCE = Path(__file__).with_name("advance.lua").read_text()
_STANDING = Path(__file__).with_name("standing.lua").read_text()
_SPREAD = 64
_SLOTS_EACH = 16_384 // _SPREAD
_ANY = "-"
_SAME = "="
# Position, watermark, layout; of a release before watermarks the position alone.
_MARK = re.compile(rb"(-?[0-9]{1,16})(?: ([0-9]{1,19})(?: ([!-~]+))?)?")


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
        return _position(least([value for _, value in answers], layout))

    def peek(self, names: Sequence[str]) -> list[Marker | None]:
        """Return the markers by their names, from one round trip; it is no beginning of work."""
        layout = self._servers.layout()
        marks = [marker_keys(name, spread=layout is not None) for name in names]
        values = iter(self._servers.read([], list(chain.from_iterable(marks))))
        return [least(list(islice(values, len(each))), layout) for each in marks]

    def refresh(self, marks: Mapping[str, Marker]) -> None:
        """Record watermarks; positions, and the layouts that they were set under, stay.

        Raises:
            StoreError: a marker is further back than it should be.
        """
        spread = self._servers.layout() is not None
        keys: list[bytes] = []
        values: list[bytes] = []
        for name, (seq, watermark_us) in marks.items():
            own = marker_keys(name, spread=spread)
            keys += own
            values += [f"{seq} {_ANY} {_SAME} {seq} {watermark_us}".encode()] * len(own)
        if self._servers.write(self._advance, keys, values) < len(keys):
            raise self.lost()

    def set(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        """Record how far partitions were applied, by the names of their markers, never going back.

        Args:
            expected: what each marker must have reached, None: anything; by default anything.

        Raises:
            StoreError: a server is not the one any more that it was when ``get`` was last called, or a marker is
                further back than it should be.
        """
        keys: list[bytes] = []
        values: list[bytes] = []
        for name, (seq, watermark_us) in marks.items():
            layout, identities = self._began.get(name) or (self._servers.layout(), [])
            own = marker_keys(name, spread=layout is not None)
            identities = identities or [_ANY] * len(own)
            reached = None if expected is None else expected[name]
            stands = _ANY if reached is None else str(reached)
            keys += own
            rest = f"{layout or _ANY} {stands} {watermark_us}"
            values += [f"{seq} {identity} {rest}".encode() for identity in identities]
        if self._servers.write(self._advance, keys, values) < len(keys):
            raise self.lost()

    def guard(self, name: str, position: int | None) -> Callable[[int | None], bytes]:
        """Return what makes, for the slot of a call, the argument that says where a marker of its server must stand."""
        stands = b"-" if position is None else b"%d" % position

        def argument(slot: int | None) -> bytes:
            part = None if slot is None else self._part_beside(slot)
            key = name.encode() if part is None else marker_key_of(name, part)
            return key + b" " + stands

        return argument

    def _part_beside(self, slot: int) -> int | None:
        """Return the nearest part whose marker the server of a slot has; None: it has none."""
        server_of = self._servers.client.nodes_manager.get_node_from_slot
        own, server = slot // _SLOTS_EACH, server_of(slot)
        if server_of(TAG_SLOTS[own]) == server:
            return own
        parts = (part for part in range(_SPREAD) if server_of(TAG_SLOTS[part]) == server)
        return min(parts, key=lambda part: abs(part - own), default=None)

    def lost(self) -> StoreError:
        """Return the error that says that a server is not what it was."""
        return StoreError(
            f"Redis at {self._place}",
            "was restarted, emptied or failed over while rows were put, and may have lost some",
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


def least(values: Sequence[bytes | None], layout: str | None = None) -> Marker | None:
    """Return the least of some stored markers; None if one is missing, or says ``LOST``, or has another layout.

    >>> least([b"7 30", b"5 40"]), least([b"7 30", None]), least([b"7 30", b"-2 0"]), least([b"7 3 a", b"7 3 b"], "a")
    (Marker(position=5, watermark_us=30), None, None, None)
    """
    if layout is not None and any(_layout(value) != layout for value in values):
        return None
    found = [mark for value in values if (mark := mark_of(value)) is not None]
    if not found or len(found) < len(values):
        return None
    return Marker(min(mark.position for mark in found), min(mark.watermark_us for mark in found))


def mark_of(value: bytes | None) -> Marker | None:
    r"""Return a stored marker; None if there is none, or it says ``LOST``, or is damaged.

    >>> mark_of(b"7 30"), mark_of(b"7 30 layout"), mark_of(b"-2 0"), mark_of(None)
    (Marker(position=7, watermark_us=30), Marker(position=7, watermark_us=30), None, None)
    >>> [mark_of(text) for text in (b"", b"x 1", b"7 x", b"7 30 ", b"1_0 3", b"9" * 17 + b" 1", b"\xff")]
    [None, None, None, None, None, None, None]
    """
    found = None if value is None else _MARK.fullmatch(value)
    if found is None or (number := int(found[1])) <= LOST:
        return None
    return Marker(number, int(found[2] or 0))


def split(values: Sequence[bytes | None], n: int, marks: Sequence[Sequence[bytes]]) -> Marked:
    """Return the n rows that come first, and the least of the stored values of each marker.

    >>> split([b"row", b"7 2", b"5 3"], 1, [[b"m:{1}", b"m:{2}"]])
    ([b'row'], [Marker(position=5, watermark_us=2)])
    """
    found = iter(values[n:])
    return list(values[:n]), [least(list(islice(found, len(each)))) for each in marks]


def _position(mark: Marker | None) -> int | None:
    return None if mark is None else mark.position


def _layout(value: bytes | None) -> str:
    found = None if value is None else _MARK.fullmatch(value)
    return "" if found is None else (found[3] or b"").decode()


def _tags() -> list[int]:
    """Return the least number for each part of the slots that, as a hash tag, lies in it."""
    found: dict[int, int] = {}
    for number in islice(count(), 10_000):
        found.setdefault(key_slot(b"%d" % number) // _SLOTS_EACH, number)
    return [found[part] for part in range(_SPREAD)]


_TAGS = tuple(_tags())
TAG_SLOTS = tuple(key_slot(b"%d" % tag) for tag in _TAGS)
