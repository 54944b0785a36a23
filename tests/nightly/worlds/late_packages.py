"""Packages of a model ``late`` with the least contents, which processes of tests write at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np

from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split
from skewless.infra.models.packages.package import PackageContents
from skewless.infra.models.packages.writer import write_package
from skewless.infra.models.runtimes.certification import Reference
from tests.worlds.packages import store_at

CONTENTS = PackageContents(
    model_name="model.txt",
    model=b"m" * 100_000,
    plan={},
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
)


def write_late(root: Path, n: int = 1) -> list[str]:
    """Write packages below a folder; return their versions."""
    return [write_package(store_at(root), "late", CONTENTS).version for _ in range(n)]
