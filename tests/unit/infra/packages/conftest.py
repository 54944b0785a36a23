"""A small package's contents."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split
from skewless.infra.models.packages.package import PackageContents
from skewless.infra.models.runtimes.certification import Reference

SPEC = ModelSpec(
    name="late",
    service="late_v1",
    labels=LabelSource(path="labels.parquet", event_time="at", known_time="known", label="y", columns={"a": "b"}),
    algorithm="lightgbm",
    split=Split(test=timedelta(days=7), embargo=timedelta(hours=2)),
    params={"num_leaves": 15},
)


@pytest.fixture
def contents() -> PackageContents:
    rows = np.array([[np.nan, -0.0], [5e-324, np.inf]])
    return PackageContents(
        model_name="model.txt",
        model=b"tree\nversion=v4\n",
        spec=SPEC,
        plan={"features": ["x", "\u00e9"], "hash": "abc"},
        reference=Reference(rows, np.array([0.1, -0.0]), np.array([0.5, np.nan])),
        profile={"rows": 2},
        metrics={"auc": 0.1 + 0.2, "precision": None},
        fingerprint={"rows": 2, "sha256": "ff"},
        about={"code": "cafe"},
        extra={"transforms.py": "def f(x):\n    return x  # \u00fc\n"},
    )
