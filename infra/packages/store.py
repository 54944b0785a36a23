"""Where the packages of a project lie, who signs them, and whose are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.infra.packages.signing import PRIVATE_FILE, TRUSTED_FILE, Signer, TrustPolicy


@dataclass(frozen=True, kw_only=True)
class PackageStore:
    """What reads and writes packages needs to know.

    Args:
        root: folder of all models' packages.
        trust: whose packages are loaded.
        signer: what signs new ones.
    """

    root: Path
    trust: TrustPolicy
    signer: Signer

    @classmethod
    def of(cls, state: Path, settings: Settings) -> Self:
        """Return the packages of a state folder, as the settings say.

        Raises:
            DefinitionError: the setting ``trusted_keys`` holds something else than keys.
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
        """Return the public key that new packages are signed with; the state folder's own key is made if need be.

        Raises:
            DefinitionError: it is not among the trusted keys.
            PlaceError: the key cannot be read.
            StoreError: the disk refused to keep a new one.
        """
        public = self.signer.prepare()
        if public not in self.trust.trusted():
            fix = "add it to trusted_keys, or name the key of a trusted one in signing_key"
            raise DefinitionError("setting 'signing_key'", "is a key that is not trusted", value=public, fix=fix)
        return public
