"""A writer of packages in a process of its own: it writes versions, or kills itself at one of its durable steps.

Run as a program, it writes versions: ``shared_packages.py FOLDER DATABASE STORAGE COUNT``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skewless.contract.settings import Settings
from skewless.infra.models.packages.package import PackageContents
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.packages.writer import write_package
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless_cloud.storage import CloudStorage
from tests.nightly.worlds.late_packages import CONTENTS
from tests.reliability.kills import Steps


def package_contents() -> PackageContents:
    """Return the contents of a small package."""
    return replace(CONTENTS, model=b"m" * 1_000, plan={"hash": "abc"}, extra={"transforms.py": "x = 1\n"})


def order_of(state: ProjectState) -> dict[str, Any]:
    """Return the order to write a version on the host of a state."""
    return {"folder": str(state.folder), "database_url": state.database_url, "storage_url": state.storage_url}


def act(steps: Steps, order: dict[str, Any]) -> None:
    """Write one version under the eyes of ``kills``."""
    steps.wrap(os, "fsync", lambda *_: "sync")
    steps.wrap(os, "rename", lambda *_: "rename")
    steps.wrap(CloudStorage, "put_file", lambda *_: "put")
    steps.wrap(Documents, "create", lambda documents, *_: f"create-{documents._kind}")
    store = _open(order["folder"], order["database_url"], order["storage_url"])
    write_package(store, "late", package_contents())


def _open(folder: str, database_url: str, storage_url: str) -> PackageStore:
    return PackageStore.of(ProjectState(Path(folder), database_url, storage_url), Settings())


def main(arguments: Sequence[str]) -> None:
    """Write versions."""
    *places, count = arguments
    store = _open(*places)
    sys.stdout.write(json.dumps([write_package(store, "late", package_contents()).version for _ in range(int(count))]))


if __name__ == "__main__":
    main(sys.argv[1:])
