"""Shares numbered leases, such as the partitions of a stream, fairly among the members of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import has_died, new_holder


@dataclass(frozen=True, kw_only=True)
class LeaseShare:
    """The leases of one member after a heartbeat.

    Args:
        kept: leases that the member still has, in the given order.
        acquired: free leases that it has now, too.
        surplus: kept leases beyond its fair share; the next heartbeat without them releases them.
    """

    kept: Sequence[int]
    acquired: Sequence[int]
    surplus: Sequence[int]


class LeaseGroup:
    """One member of a group. Its leases expire by the clock of the database, all at the same time.

    The leases of a process that was killed are free at once on its machine. A lease assigns work and is not a
    fence: a member that was paused may believe that it still has one. So its writes must fail if a successor has
    written before. The members of a group and their leases are one document, so a heartbeat is one small write.

    Args:
        database: of the project.
        name: of the group.
        n: number of leases.
        ttl_s: seconds from a heartbeat to the expiry of the leases.

    Attributes:
        numbers: of the leases that are shared, at first 0 to n - 1; the others are never acquired.
    """

    def __init__(self, database: Database, name: str, n: int, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self._database = database
        self._groups = Documents(database, "lease group")
        self._name = name
        self.numbers: Sequence[int] = range(n)
        self._member = new_holder()

    def send_heartbeat(self, held: Sequence[int]) -> LeaseShare:
        """Renew leases, release others, and acquire free ones up to a fair share, in one transaction.

        Args:
            held: the leases that this member works for.

        Raises:
            StoreError: the database is unavailable.
        """
        with self._groups.edit(self._name, {}) as members:
            now_us = self._database.now_us()
            mine = members.get(self._member, {"leases": []})["leases"]
            for member in [member for member in members if members[member]["until_us"] < now_us or has_died(member)]:
                del members[member]
            leased = {index for member in members.values() for index in member["leases"]}
            # Its own leases also if it was late, because nobody can have acquired them before this transaction.
            kept = [index for index in held if index in mine]
            share = fair_share(len(self.numbers), [*members.keys() - {self._member}, self._member], self._member)
            free = [index for index in self.numbers if index not in kept and (index in mine or index not in leased)]
            acquired = free[: max(0, share - len(kept))]
            until_us = now_us + int(self.ttl_s * 1_000_000)
            members[self._member] = {"until_us": until_us, "leases": [*kept, *acquired]}
        return LeaseShare(kept=kept, acquired=acquired, surplus=kept[share:])

    def leave(self) -> None:
        """Leave the group, and release all leases.

        Raises:
            StoreError: the database is unavailable; the leases expire.
        """
        with self._groups.edit(self._name, {}) as members:
            members.pop(self._member, None)


def fair_share(n_leases: int, members: Sequence[str], member: str) -> int:
    """Return the number of leases for a member; the shares of all members add up to the number of leases.

    The order of names decides who gets one more, so that members with the same view of the group agree.

    >>> [fair_share(4, ["c", "a", "b"], member) for member in "abc"]
    [2, 1, 1]
    """
    n = len(members)
    if member not in members:
        return 0
    return n_leases // n + (sorted(members).index(member) < n_leases % n)
