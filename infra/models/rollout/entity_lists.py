"""Allow and deny lists of policies: each change is a new version, and predictions name the version that they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError, StoreError
from skewless.contract.names import check_name
from skewless.contract.policy import ListValues
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Records

MOST_VALUES = 100_000
_LONGEST = 1_000  # characters of a value
_ERASURE = "an entity was erased"


@dataclass(frozen=True, kw_only=True)
class ListVersion:
    """One version of a list.

    Args:
        number: of the version; the first is 1.
        values: as text, sorted.
        reason: why it was written.
        at_us: when, UTC microseconds.
        erased: number of values that were removed because their entities were erased.
    """

    name: str
    number: int
    values: Sequence[str]
    reason: str
    at_us: int
    erased: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values without the values of the list; the time is ISO 8601, UTC."""
        at = from_us(self.at_us).isoformat()
        return {"name": self.name, "number": self.number, "count": len(self.values), "at": at, "reason": self.reason}


class EntityLists:
    """The lists of a project."""

    def __init__(self, database: Database) -> None:
        self._database, self._records = database, Records(database, "list")

    def names(self) -> list[str]:
        """Return the names of all lists."""
        return self._records.names()

    def write(
        self, name: str, values: Iterable[str], *, reason: str, now_us: int, dry_run: bool = False
    ) -> ListVersion:
        """Write the next version, and return it; if the latest has equal values, return that.

        Raises:
            RequestError: the name or a value is invalid, or there are more than 100,000 values.
            ConflictError: another process has just written a version.
            StoreError: the database is unavailable.
        """
        check_name("list", name)
        known = sorted(set(values))
        if len(known) > MOST_VALUES:
            raise RequestError(f"list {name!r}", "has too many values", value=len(known), fix=f"keep {MOST_VALUES}")
        for value in known:
            if not value or len(value) > _LONGEST:
                problem = f"has a value that does not have 1 to {_LONGEST} characters"
                raise RequestError(f"list {name!r}", problem, value=value[:40], fix="remove it")
        latest = self.read(name)
        if latest is not None and latest.values == known:
            return latest
        body: dict[str, Any] = {"values": known, "reason": reason, "at_us": now_us}
        number = 1 + (0 if latest is None else latest.number)
        if not dry_run:
            self._records.append(name, number, body)
        return ListVersion(name=name, number=number, **body)

    def erase(self, name: str, owns: Callable[[str], bool], *, now_us: int, dry_run: bool = False) -> int:
        """Remove values of an erased entity from all versions of a list; return how many versions had some.

        If the latest had, a new version follows, so that running servers forget the values. An interrupted call is
        repeated.

        Args:
            owns: whether a value is of the entity.

        Raises:
            ConflictError: another process has just written a version; repeat the call.
            StoreError: the database is unavailable.
        """
        latest, n = self._records.latest_number(name), 0
        for number in range(latest, 0, -1):
            body = self._records.read(name, number)
            if body is None:
                continue
            kept = [value for value in body["values"] if not owns(value)]
            removed = len(body["values"]) - len(kept)
            n += removed > 0
            if removed and not dry_run:
                body |= {"values": kept, "erased": body.get("erased", 0) + removed}
                with self._database.transaction():
                    self._records.replace(name, number, body)
                    if number == latest:
                        successor = {"values": kept, "reason": _ERASURE, "at_us": now_us}
                        self._records.append(name, number + 1, successor)
        return n

    def read(self, name: str, number: int | None = None) -> ListVersion | None:
        """Return a version of a list, or its latest; None: there is none."""
        if number is None:
            # One question for all versions: a server that remembers the answers forgets the values of the one before.
            number, body = self._records.latest(name) or (0, None)
        else:
            body = self._records.read(name, number)
        return None if body is None else ListVersion(name=name, number=number, **body)

    def read_all(self, numbers: Mapping[str, int]) -> dict[str, ListVersion]:
        """Return some versions of lists by name.

        Raises:
            StoreError: one is not there.
        """
        found = {name: self.read(name, number) for name, number in numbers.items()}
        for name, version in found.items():
            if version is None:
                fix = "restore the database from a backup that has it"
                raise StoreError(f"list {name!r}", "lacks a version", value=numbers[name], fix=fix)
        return {name: version for name, version in found.items() if version is not None}

    def refresh(self, names: Iterable[str], known: ListValues) -> ListValues:
        """Return the latest version of each list; a list that has not changed is not read again."""
        current: dict[str, tuple[int, frozenset[str]]] = {}
        for name in names:
            number = self._records.latest_number(name)
            if name in known and known[name][0] == number:
                current[name] = known[name]
            elif number and (version := self.read(name)) is not None:
                current[name] = version.number, frozenset(version.values)
        return current
