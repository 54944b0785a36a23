"""How many partitions each member of a group takes."""

from __future__ import annotations

from collections.abc import Sequence


def fair_share(n_partitions: int, members: Sequence[str], me: str) -> int:
    """Return how many partitions are mine; all shares add up to the number of partitions.

    Who gets one more is decided by the order of the names, so that members who see the same group agree.

    >>> [fair_share(4, ["c", "a", "b"], me) for me in "abc"]
    [2, 1, 1]
    """
    n = len(members)
    if me not in members:
        return 0
    return n_partitions // n + (sorted(members).index(me) < n_partitions % n)
