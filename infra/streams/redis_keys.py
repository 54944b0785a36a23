"""Redis keys and positions of an event stream.

All keys of one partition have one hash tag, so that a cluster stores them in one slot::

    sk:P:events:{SOURCE:0}                    the messages: a stream whose entries have the field "e"
    sk:P:events:{SOURCE:0}:epoch              the epoch of the stream
    sk:P:events:{SOURCE:0}:committed          the next position to read, by group
"""

from __future__ import annotations

from dataclasses import dataclass

FIELD = b"e"
_SEQ_BITS = 22
_MOST_SEQ = (1 << _SEQ_BITS) - 1


@dataclass(frozen=True, kw_only=True)
class EventKeys:
    """The keys of one stream for one group.

    >>> EventKeys(project="p", source="clicks", group="g").stream(3)
    'sk:p:events:{clicks:3}'
    """

    project: str
    source: str
    group: str = ""

    def stream(self, index: int) -> str:
        """Return the key of a partition's messages."""
        return f"sk:{self.project}:events:{{{self.source}:{index}}}"

    def epoch(self, index: int) -> str:
        """Return the key of a partition's epoch."""
        return f"{self.stream(index)}:epoch"

    def committed(self, index: int) -> str:
        """Return the key of a partition's committed positions, by group."""
        return f"{self.stream(index)}:committed"


def parse_position(entry_id: bytes) -> int:
    """Return the position of an entry; positions are ordered like the entries.

    >>> parse_position(b"3-5")
    12582917
    """
    ms, _, seq = entry_id.partition(b"-")
    return (int(ms) << _SEQ_BITS) + int(seq)


def format_entry_id(position: int) -> str:
    """Return the lowest entry id with at least a position.

    >>> format_entry_id(12582917)
    '3-5'
    """
    return f"{position >> _SEQ_BITS}-{position & _MOST_SEQ}"
