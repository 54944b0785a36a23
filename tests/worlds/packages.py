"""Packages outside a project: any folder; its key and its database are in a folder next to it."""

from __future__ import annotations

from pathlib import Path

from skewless.infra.models.packages.signing import Signer, TrustPolicy
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.package_folder import PackageFolder
from skewless.infra.platform.storage.project_state import ProjectState


def store_at(root: Path, *, unsigned: bool = False, database_url: str | None = None) -> PackageStore:
    """Return the packages of a folder, signed by its own key."""
    keys = root.with_name(f"{root.name}.keys")
    state = ProjectState(keys, database_url)
    return PackageStore(
        packages=PackageFolder(root),
        state=state,
        trust=TrustPolicy(state=state, unsigned=unsigned),
        signer=Signer(path=keys / "key.pem", own=True, state=state),
    )
