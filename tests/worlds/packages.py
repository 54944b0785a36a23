"""Packages outside a project: any folder with a key of its own beside it."""

from __future__ import annotations

from pathlib import Path

from skewless.infra.packages.signing import Signer, TrustPolicy
from skewless.infra.packages.store import PackageStore


def store_at(root: Path, *, unsigned: bool = False) -> PackageStore:
    """Return the packages of a folder, signed by a key that lies beside it."""
    keys = root.with_name(f"{root.name}.keys")
    trusted = keys / "trusted"
    return PackageStore(
        root=root,
        trust=TrustPolicy(file=trusted, unsigned=unsigned),
        signer=Signer(path=keys / "key.pem", own=True, trusted=trusted),
    )
