"""Records how far log partitions have been applied, safe against servers that lose writes (SEMANTICS 4.5).

A server that loses acknowledged writes loses the latest ones: a truncated append-only file, an older snapshot and a
lagging replica all hold a prefix of the writes. So a marker proves that all rows written before it, to the same
server, still exist. Two rules follow::

    one marker on every server      rows are spread over slots, so 64 markers are spread over them
    set only where it was read      the run id and replication id must be the same as at the start of the work;
                                    the server checks this in the script that sets the marker

After a loss the marker is an older one, and later log positions are applied again. If slots have moved since a marker
was set, their rows are on a server whose marker does not cover them. Then everything is applied again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path

from skewless.contract.errors import StoreError
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.online.clients import translate_errors
from skewless.infra.reads.online.port import LOST, Marker, RowsAndMarkers
from skewless.infra.reads.online.servers import SLOTS, RedisClient, key_slot

_ADVANCE = Path(__file__).with_name("advance.lua").read_text()
_READ_IDENTITY = Path(__file__).with_name("read_identity.lua").read_text()
_SPREAD = 64
_SLOTS_EACH = SLOTS // _SPREAD
# Wildcards in the arguments of the Lua scripts.
_ANY = "-"
_SAME = "="
# Position, watermark, layout. Releases before watermarks wrote the position only.
_MARKER = re.compile(rb"(-?[0-9]{1,16})(?: ([0-9]{1,19})(?: ([!-~]+))?)?")


class MarkerClient(RedisClient):
    """The markers in one Redis or Redis Cluster, as in ``OnlineStore``.

    Args:
        url: of the servers that hold the rows.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        with translate_errors(url):
            register = self._servers.client.register_script
            self._advance, self._read_identity = register(_ADVANCE), register(_READ_IDENTITY)
        self._sessions: dict[str, tuple[str | None, list[str]]] = {}

    def marker(self, name: str) -> int | None:
        """Begin work that ends with ``set_markers``: return the position that every server has applied, or None."""
        with translate_errors(self._url):
            layout = self._servers.layout()
            replies = [self._read_identity(keys=[key]) for key in marker_keys(name, spread=layout is not None)]
        self._sessions[name] = layout, [identity.decode() for identity, _ in replies]
        marker = lowest_marker([value for _, value in replies], layout)
        return None if marker is None else marker.position

    def read_markers(self, names: Sequence[str]) -> list[Marker | None]:
        """Return markers by their names, from one round trip; does not begin work."""
        with translate_errors(self._url):
            layout = self._servers.layout()
            marks = [marker_keys(name, spread=layout is not None) for name in names]
            values = iter(self._servers.read([], list(chain.from_iterable(marks))))
        return [lowest_marker(list(islice(values, len(each))), layout) for each in marks]

    def refresh_markers(self, marks: Mapping[str, Marker]) -> None:
        """Record watermarks; positions and layouts stay unchanged.

        Raises:
            StoreError: a marker is behind its expected position.
        """
        if not marks:
            return
        with translate_errors(self._url):
            spread = self._servers.layout() is not None
            self._advance_all(
                (key, f"{seq} {_ANY} {_SAME} {seq} {watermark_us}".encode())
                for name, (seq, watermark_us) in marks.items()
                for key in marker_keys(name, spread=spread)
            )

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        """Record applied positions by marker name. Markers never go back.

        Args:
            marks: by name, the new markers.
            expected: the position that each marker must have reached, None: any; by default any.

        Raises:
            StoreError: a server was replaced or restarted after ``marker``, or a marker is behind its minimum.
        """
        if not marks:
            return
        values: list[tuple[bytes, bytes]] = []
        with translate_errors(self._url):
            for name, (seq, watermark_us) in marks.items():
                # Without a preceding ``marker``, any server may set the marker.
                layout, identities = self._sessions.get(name) or (self._servers.layout(), [])
                keys = marker_keys(name, spread=layout is not None)
                reached = None if expected is None else expected[name]
                # A marker that covers nothing must not give the present layout to one that covers rows of another.
                now = _SAME if seq <= LOST else layout or _ANY
                rest = f"{now} {_ANY if reached is None else reached} {watermark_us}"
                texts = (f"{seq} {identity} {rest}".encode() for identity in identities or [_ANY] * len(keys))
                values += zip(keys, texts, strict=True)
            self._advance_all(values)

    def _advance_all(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        keys, texts = zip(*values, strict=True)
        # The script counts the markers that it has set: a restarted server, or one that is behind, sets none.
        if sum(reply for _, reply in self._servers.call(self._advance, keys, texts)) < len(keys):
            raise self._lost_error()

    def _marker_argument(self, name: str, position: int | None) -> Callable[[int | None], bytes]:
        """Return a function from a slot to a script argument: a marker of its server and its minimum position."""
        minimum = b"-" if position is None else b"%d" % position

        def argument(slot: int | None) -> bytes:
            part = None if slot is None else self._nearest_part(slot)
            key = name.encode() if part is None else marker_key_of(name, part)
            return key + b" " + minimum

        return argument

    def _nearest_part(self, slot: int) -> int | None:
        """Return the nearest part of the slots whose marker is on the server of a slot; None: there is none."""
        server_of = self._servers.client.nodes_manager.get_node_from_slot
        keys_of_marker, server = slot // _SLOTS_EACH, server_of(slot)
        if server_of(TAG_SLOTS[keys_of_marker]) == server:
            return keys_of_marker
        parts = (part for part in range(_SPREAD) if server_of(TAG_SLOTS[part]) == server)
        return min(parts, key=lambda part: abs(part - keys_of_marker), default=None)

    def _lost_error(self) -> StoreError:
        """Return the error for a server that may have lost writes."""
        return StoreError(
            f"Redis at {display_url(self._url)}",
            "was restarted, emptied or failed over during the write and may have lost rows",
            fix="run it again; lost rows are written again",
        )


def marker_keys(name: str, *, spread: bool) -> list[bytes]:
    """Return the keys of a marker: one key, or one in each 64th of the cluster slots.

    >>> len({key_slot(key) // 256 for key in marker_keys("m", spread=True)})
    64
    """
    return [marker_key_of(name, part) for part in range(_SPREAD)] if spread else [name.encode()]


def marker_key_of(name: str, part: int) -> bytes:
    """Return the key of a marker in one of the 64 parts of the slots."""
    return f"{name}:{{{_TAGS[part]}}}".encode()


def lowest_marker(values: Sequence[bytes | None], layout: str | None = None) -> Marker | None:
    """Return the lowest of some stored markers; None if one is missing, ``LOST``, or was set under another layout.

    >>> lowest_marker([b"7 30", b"5 40"])
    Marker(position=5, watermark_us=30)
    >>> lowest_marker([b"7 30", None]), lowest_marker([b"7 30", b"-2 0"]), lowest_marker([b"7 3 a", b"7 3 b"], "a")
    (None, None, None)
    """
    # Slots have moved since: the marker does not cover rows that came from another server.
    if layout is not None and any(_layout(value) != layout for value in values):
        return None
    markers = [marker for value in values if (marker := parse_marker(value)) is not None]
    if not markers or len(markers) < len(values):
        return None
    return Marker(min(marker.position for marker in markers), min(marker.watermark_us for marker in markers))


def parse_marker(value: bytes | None) -> Marker | None:
    r"""Return a stored marker; None if it is missing, ``LOST`` or corrupt.

    >>> parse_marker(b"7 30"), parse_marker(b"7 30 layout"), parse_marker(b"-2 0"), parse_marker(None)
    (Marker(position=7, watermark_us=30), Marker(position=7, watermark_us=30), None, None)
    >>> [parse_marker(text) for text in (b"", b"x 1", b"7 x", b"7 30 ", b"1_0 3", b"9" * 17 + b" 1", b"\xff")]
    [None, None, None, None, None, None, None]
    """
    match = None if value is None else _MARKER.fullmatch(value)
    if match is None or (number := int(match[1])) <= LOST:
        return None
    return Marker(number, int(match[2] or 0))


class MarkerSplitter:
    """Splits replies into rows and the lowest marker of each group of marker keys; threads may share it.

    Markers hardly ever change between two replies. While they do not, the list of markers is the same object, so that
    nothing that follows from them has to be found out again.

    >>> MarkerSplitter().split([b"row", b"7 2", b"5 3"], 1, [[b"m:{1}", b"m:{2}"]])
    ([b'row'], [Marker(position=5, watermark_us=2)])
    """

    def __init__(self) -> None:
        self._last: tuple[list[bytes | None], Sequence[Sequence[bytes]], list[Marker | None]] = [], [], []

    def split(self, values: list[bytes | None], n: int, groups: Sequence[Sequence[bytes]]) -> RowsAndMarkers:
        """Return the n rows at the front, and the lowest marker of each group of the keys whose values follow."""
        stored, last = values[n:], self._last
        if stored != last[0] or groups != last[1]:
            each = iter(stored)
            markers = [lowest_marker(list(islice(each, len(group)))) for group in groups]
            self._last = last = stored, groups, markers
        return values[:n], last[2]


def _layout(value: bytes | None) -> str:
    match = None if value is None else _MARKER.fullmatch(value)
    return "" if match is None else (match[3] or b"").decode()


def _tags() -> list[int]:
    """Return, for each part of the slots, the smallest number that is a hash tag of that part."""
    tags: dict[int, int] = {}
    for number in islice(count(), 10_000):
        tags.setdefault(key_slot(b"%d" % number) // _SLOTS_EACH, number)
    return [tags[part] for part in range(_SPREAD)]


_TAGS = tuple(_tags())
TAG_SLOTS = tuple(key_slot(b"%d" % tag) for tag in _TAGS)
