"""The keys of a stream of events in Redis, and its positions.

What belongs to one partition has one hash tag, so that a cluster keeps it in one slot::

    sk:P:events:{SOURCE:0}                    the messages: a stream whose entries have the field "e"
    sk:P:events:{SOURCE:0}:epoch              which life of it this is
    sk:P:events:{SOURCE:0}:lease:GROUP        the member of a group that owns it, until it expires
    sk:P:events:{SOURCE:0}:committed          the next position to read, by group
    sk:P:events:{SOURCE}:members:GROUP        when each member of a group was last seen
"""

from __future__ import annotations

from dataclasses import dataclass

FIELD = b"e"
_SEQ_BITS = 22
_MOST_SEQ = (1 << _SEQ_BITS) - 1


@dataclass(frozen=True, kw_only=True)
class EventKeys:
    """The keys of one stream as one group sees them.

    >>> EventKeys(project="p", source="clicks", group="g").stream(3)
    'sk:p:events:{clicks:3}'
    """

    project: str
    source: str
    group: str = ""

    @property
    def members(self) -> str:
        """The sorted set of the group's members, by the time of the server in milliseconds."""
        return f"sk:{self.project}:events:{{{self.source}}}:members:{self.group}"

    def stream(self, index: int) -> str:
        """Return the key of a partition's messages."""
        return f"sk:{self.project}:events:{{{self.source}:{index}}}"

    def epoch(self, index: int) -> str:
        """Return the key that says which life of a partition this is."""
        return f"{self.stream(index)}:epoch"

    def lease(self, index: int) -> str:
        """Return the key that says who owns a partition."""
        return f"{self.stream(index)}:lease:{self.group}"

    def committed(self, index: int) -> str:
        """Return the key of what the groups have committed of a partition."""
        return f"{self.stream(index)}:committed"


def position_of(entry_id: bytes) -> int:
    """Return the position of an entry; positions are ordered as the entries are.

    >>> position_of(b"3-5")
    12582917
    """
    ms, _, seq = entry_id.partition(b"-")
    return (int(ms) << _SEQ_BITS) + int(seq)


def entry_id_of(position: int) -> str:
    """Return the least entry id that has at least a position.

    >>> entry_id_of(12582917)
    '3-5'
    """
    return f"{position >> _SEQ_BITS}-{position & _MOST_SEQ}"
