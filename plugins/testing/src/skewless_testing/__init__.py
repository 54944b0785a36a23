"""Tests of feature definitions: given these events and rows, at this time, the vector is this.

A pytest plugin, which comes with the package, offers the fixture ``features``, a ``FeatureCase``. It needs neither
Redis nor files of data: events and rows of a test are judged, aggregated, joined and transformed in memory by the code
that serves and trains.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skewless_testing.feature_case import FeatureCase
    from skewless_testing.feature_vector import FeatureVector

__all__ = ["FeatureCase", "FeatureVector"]
_MODULES = {"FeatureCase": "feature_case", "FeatureVector": "feature_vector"}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562): pytest loads the plugin in every run."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
