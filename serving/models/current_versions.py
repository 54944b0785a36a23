"""The versions that aliases and traffic policies assign to a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from skewless.contract.traffic import TrafficPolicy
from skewless.infra.packages.store import PackageStore
from skewless.infra.plans.needed_views import CHAMPION, retained_champions


class CurrentVersions(NamedTuple):
    """The versions of a model that a server should load.

    Args:
        champions: the last champions, the current one first; empty: the model has none.
        policy: the current traffic policy; None: the model never had one.
    """

    champions: tuple[str, ...]
    policy: TrafficPolicy | None

    @property
    def champion(self) -> str | None:
        """Return the version with the alias, None if there is none."""
        return next(iter(self.champions), None)


class CurrentVersionsReader:
    """Reads current versions from the database, again after a move of the alias or a new policy.

    Args:
        keep: number of champions, including the current one.
    """

    def __init__(self, store: PackageStore, keep: int) -> None:
        self._store = store
        self._keep = keep
        self._cached: dict[str, tuple[object, CurrentVersions]] = {}

    def read(self, names: Iterable[str]) -> dict[str, CurrentVersions]:
        """Return the current versions of models.

        Raises:
            PackageError: an alias or a policy is corrupt.
            StoreError: the database is unavailable.
        """
        return {name: self._read(name) for name in names}

    def _read(self, name: str) -> CurrentVersions:
        aliases, traffic = self._store.aliases, self._store.traffic
        # Before the values: if they change during the read, the next call reads them again.
        numbers = aliases.number(name, CHAMPION), traffic.number(name)
        cached = self._cached.get(name)
        if cached is None or cached[0] != numbers:
            champions = tuple(retained_champions(self._store, name, self._keep))
            cached = self._cached[name] = numbers, CurrentVersions(champions, traffic.get(name))
        return cached[1]
