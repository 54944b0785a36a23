"""Which files of the prediction log replay has proven already."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from skewless.infra.predictions.files import FOLDER
from skewless.infra.storage.durable import exclusive, replace_durable

_FILE = "proven.json"


def proven_files(state: Path) -> frozenset[str]:
    """Return the names of the files whose predictions were all proven; none where that is not known."""
    try:
        names = json.loads((state / _FILE).read_text())["files"]
        return frozenset(name for name in names if isinstance(name, str))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def add_proven(state: Path, names: Collection[str]) -> None:
    """Keep names of proven files, beside those from before that are still there.

    Raises:
        StoreError: the disk refused; the files are proven once more then.
    """
    with exclusive(state / "proven.lock"):
        standing = {path.name for path in (state / FOLDER).glob("*.parquet")}
        body = {"files": sorted((proven_files(state) | set(names)) & standing)}
        replace_durable(state / _FILE, json.dumps(body).encode())
