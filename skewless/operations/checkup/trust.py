"""The state folder: who may read and write it, and whose packages are loaded from it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, good

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_trust(state: Path, settings: Settings) -> Iterator[CheckupFinding]:
    """Yield whether others may read or change the state, and whether packages without a signature are loaded."""
    if state.is_dir():
        yield _check_folder(state)
    key = state / "signing_key.pem" if settings.signing_key is None else Path(settings.signing_key)
    if key.exists() and key.stat().st_mode & _OTHERS:
        yield bad(
            "signing key",
            f"{key} may be read by others (mode {_mode(key)}), who can sign packages that this project loads",
            f"run `chmod 600 {key}`; if others had it, see docs/security.md on how to replace it",
        )
    if settings.unsigned_packages == "load":
        fix = "run `skewless sign`, then remove the setting unsigned_packages"
        yield doubt("packages", "are loaded without a signature: who can write them runs code in servers", fix)


def _check_folder(state: Path) -> CheckupFinding:
    """Say whether a folder is its owner's alone, and whether we are the owner."""
    found = state.stat()
    detail, fix = f"{state}, mode {_mode(state)}", f"run `chmod 700 {state}`"
    if found.st_uid != os.getuid():
        return doubt("state folder", f"{detail}, is another user's", "run skewless as the user who owns it")
    if found.st_mode & _OTHERS_WRITE:
        return bad("state folder", f"{detail}: others may write it, and so decide what is served", fix)
    if found.st_mode & _OTHERS:
        return doubt("state folder", f"{detail}: others may read features, predictions and outcomes", fix)
    return good("state folder", detail)


def _mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):03o}"
