"""The packages of a project: their folder, aliases, decisions and traffic, the key that signs them, trusted keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.infra.packages.aliases import Aliases
from skewless.infra.packages.signing import PRIVATE_FILE, Signer, TrustPolicy
from skewless.infra.rollout.traffic import Traffic
from skewless.infra.storage.database import Database
from skewless.infra.storage.documents import Records
from skewless.infra.storage.names import check_model_name
from skewless.infra.storage.package_folder import PackageFolder
from skewless.infra.storage.project_state import ProjectState


class Decisions:
    """The decisions about the versions of a project's models.

    Args:
        database: of the project.
    """

    def __init__(self, database: Database) -> None:
        self._records = Records(database, "decision")

    def add(self, model: str, version: str, decision: Mapping[str, Any], now_us: int) -> None:
        """Store a decision about a version.

        Args:
            decision: plain JSON values.
            now_us: the clock, UTC microseconds.

        Raises:
            StoreError: the database is unavailable; nothing was added.
        """
        self._records.add(check_model_name(model), {"version": version, "at_us": now_us, **decision})

    def read_latest_first(self, model: str) -> Iterator[dict[str, Any]]:
        """Yield the decisions about a model's versions, latest first."""
        return (dict(body) for _, body in self._records.read_latest_first(check_model_name(model)))

    def last(self, model: str, version: str) -> dict[str, Any] | None:
        """Return the last decision about a version."""
        return next((decision for decision in self.read_latest_first(model) if decision["version"] == version), None)


@dataclass(frozen=True, kw_only=True)
class PackageStore:
    """The packages of a project, to read and write.

    Args:
        packages: of all models.
        state: has the database with the aliases, decisions and traffic policies.
        trust: the keys whose packages are loaded.
        signer: signs new packages.
    """

    packages: PackageFolder
    state: ProjectState
    trust: TrustPolicy
    signer: Signer

    @classmethod
    def of(cls, state: ProjectState, settings: Settings) -> Self:
        """Return the package store of a state folder, with the signing settings.

        Raises:
            DefinitionError: a value of the setting ``trusted_keys`` is not a key.
        """
        return cls(
            packages=PackageFolder.of(state),
            state=state,
            trust=TrustPolicy(
                state=state,
                given=frozenset(settings.trusted_keys),
                unsigned=settings.unsigned_packages == "load",
            ),
            signer=Signer(
                path=state / PRIVATE_FILE if settings.signing_key is None else Path(settings.signing_key),
                own=settings.signing_key is None,
                state=None if settings.trusted_keys else state,
            ),
        )

    @property
    def aliases(self) -> Aliases:
        """The aliases of versions."""
        return Aliases(self.packages, self.state.database)

    @property
    def decisions(self) -> Decisions:
        """The decisions of gates."""
        return Decisions(self.state.database)

    @property
    def traffic(self) -> Traffic:
        """The traffic policies."""
        return Traffic(self.packages, self.state.database)

    def check_signer(self) -> str:
        """Return the public key that signs new packages; create the state folder's own key if it is missing.

        Raises:
            DefinitionError: the key is not trusted.
            PlaceError: the key cannot be read.
            StoreError: the disk refused to store a new key, or the database is unavailable.
        """
        public = self.signer.prepare()
        if public not in self.trust.trusted_keys():
            fix = "add it to trusted_keys, or name the key of a trusted one in signing_key"
            raise DefinitionError("setting 'signing_key'", "is a key that is not trusted", value=public, fix=fix)
        return public
