"""Environments of peers that cannot live beside our own libraries: made from their lock files when first asked for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.contestant import ContestantError

_LOCKS = Path(__file__).parent / "peers"
_TAIL = 2_000


def python_of(peer: str, cache: Path | None = None) -> str:
    """Return the Python of a peer's environment; it is made first where its lock file is new or was changed.

    Args:
        cache: folder of all environments; by default ``skewless-bench`` in the user's cache folder.

    Raises:
        ContestantError: it cannot be installed here.
    """
    lock = _LOCKS / f"requirements-{peer}.txt"
    identity = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = (cache or _cache()) / f"{peer}-{identity}"
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ContestantError(f"{peer} cannot be installed here:\n{done.stderr[-_TAIL:]}")
        made.touch()
    return str(python)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skewless-bench"
