"""The state folder: its permissions, and the trust in its packages."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, good

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_trust(state: ProjectState, settings: Settings) -> Iterator[CheckupFinding]:
    """Yield whether other users can read or change the state, and whether unsigned packages are loaded."""
    if state.folder.is_dir():
        yield _check_folder(state)
    key = state / "signing_key.pem" if settings.signing_key is None else Path(settings.signing_key)
    if key.exists() and key.stat().st_mode & _OTHERS:
        yield bad(
            "signing key",
            f"{key} can be read by other users (mode {_mode(key)}), who can then sign packages for this project",
            f"run `chmod 600 {key}`; if other users have read it, replace it as docs/security.md says",
        )
    if settings.unsigned_packages == "load":
        fix = "run `skewless sign`, then remove the setting unsigned_packages"
        yield doubt(
            "packages", "are loaded without a signature: a user who can write a package can run code in servers", fix
        )


def _check_folder(state: ProjectState) -> CheckupFinding:
    """Return whether only this user can read and write a folder."""
    info = state.folder.stat()
    folder = state.folder
    detail, fix = f"{folder}, mode {_mode(folder)}", f"run `chmod 700 {folder}`"
    if info.st_uid != os.getuid():
        return doubt("state folder", f"{detail}, belongs to another user", "run skewless as its owner")
    if info.st_mode & _OTHERS_WRITE:
        return bad("state folder", f"{detail}: other users can write it, and change the served models", fix)
    if info.st_mode & _OTHERS:
        return doubt("state folder", f"{detail}: other users can read features, predictions and outcomes", fix)
    return good("state folder", detail)


def _mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):03o}"
