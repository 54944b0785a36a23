"""The packages of a project: their folder, the key that signs them, and the trusted keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.infra.packages.signing import PRIVATE_FILE, TRUSTED_FILE, Signer, TrustPolicy
from skewless.infra.storage.project_state import ProjectState


@dataclass(frozen=True, kw_only=True)
class PackageStore:
    """The packages of a project, to read and write.

    Args:
        root: folder of all models' packages.
        trust: the keys whose packages are loaded.
        signer: signs new packages.
    """

    root: Path
    trust: TrustPolicy
    signer: Signer

    @classmethod
    def of(cls, state: ProjectState, settings: Settings) -> Self:
        """Return the package store of a state folder, with the signing settings.

        Raises:
            DefinitionError: a value of the setting ``trusted_keys`` is not a key.
        """
        trusted = state / TRUSTED_FILE
        return cls(
            root=state / "packages",
            trust=TrustPolicy(
                file=trusted,
                given=frozenset(settings.trusted_keys),
                unsigned=settings.unsigned_packages == "load",
            ),
            signer=Signer(
                path=state / PRIVATE_FILE if settings.signing_key is None else Path(settings.signing_key),
                own=settings.signing_key is None,
                trusted=None if settings.trusted_keys else trusted,
            ),
        )

    def check_signer(self) -> str:
        """Return the public key that signs new packages; create the state folder's own key if it is missing.

        Raises:
            DefinitionError: the key is not trusted.
            PlaceError: the key cannot be read.
            StoreError: the disk refused to store a new key.
        """
        public = self.signer.prepare()
        if public not in self.trust.trusted_keys():
            fix = "add it to trusted_keys, or name the key of a trusted one in signing_key"
            raise DefinitionError("setting 'signing_key'", "is a key that is not trusted", value=public, fix=fix)
        return public
