"""Makes the SQLite adapter an installed package, as far as Python's metadata goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ENTRY_POINTS = "[skewless.online_stores]\nsqlite = tests.sqlite_store.adapter:SQLITE\n"


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Register the adapter for this process, and for those that it starts, until the block ends.

    Args:
        folder: an empty one, for the metadata.
    """
    metadata = folder / "skewless_sqlite-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: skewless-sqlite\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(_ENTRY_POINTS)
    path = os.pathsep.join(filter(None, [str(folder), str(ROOT), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", path)
        yield
