"""A writer of packages in a process of its own: it writes versions, or kills itself at one of its durable steps.

Run as a program: ``shared_packages.py FOLDER DATABASE STORAGE write COUNT``, or ``... steps POINT SIDE``; ``POINT`` is
``NAME#NUMBER``, or empty to list the points.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np

from skewless.contract.labels import LabelSource
from skewless.contract.settings import Settings
from skewless.contract.spec import ModelSpec, Split
from skewless.infra.packages.package import PackageContents
from skewless.infra.packages.store import PackageStore
from skewless.infra.packages.writer import write_package
from skewless.infra.runtimes.certification import Reference
from skewless.infra.storage.cloud_storage import CloudStorage
from skewless.infra.storage.documents import Documents
from skewless.infra.storage.project_state import ProjectState
from tests.reliability.kills import Steps


def package_contents() -> PackageContents:
    """Return the contents of a small package."""
    return PackageContents(
        model_name="model.txt",
        model=b"m" * 1_000,
        plan={"hash": "abc"},
        profile={},
        metrics={},
        fingerprint={},
        spec=ModelSpec(
            name="late",
            service="s",
            algorithm="lightgbm",
            split=Split(test=timedelta(1)),
            labels=LabelSource(path="p", event_time="e", known_time="k", label="y"),
        ),
        reference=Reference(np.zeros((2, 1)), np.zeros(2), np.zeros(2)),
        extra={"transforms.py": "x = 1\n"},
    )


def main(arguments: Sequence[str]) -> None:
    """Write versions, or one version under the steps' eyes."""
    folder, database_url, storage_url, verb, first, *rest = arguments
    store = PackageStore.of(ProjectState(Path(folder), database_url, storage_url), Settings())
    if verb == "write":
        versions = [write_package(store, "late", package_contents()).version for _ in range(int(first))]
        sys.stdout.write(json.dumps(versions))
        return
    steps = Steps(first, "after" if rest == ["after"] else "before")
    steps.wrap(os, "fsync", lambda *_: "sync")
    steps.wrap(os, "rename", lambda *_: "rename")
    steps.wrap(CloudStorage, "put_file", lambda *_: "put")
    steps.wrap(Documents, "create", lambda documents, *_: f"create-{documents._kind}")
    write_package(store, "late", package_contents())
    if not first:
        sys.stdout.write("\n".join(steps.passed))


if __name__ == "__main__":
    main(sys.argv[1:])
