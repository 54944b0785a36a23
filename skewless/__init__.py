"""skewless: real-time tree models on a feature store, with offline and online values equal bit for bit.

The names that definitions and notebooks need are loaded on first use, so that ``import skewless`` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from skewless.version import __version__

if TYPE_CHECKING:
    from skewless.contract.actions import Explore
    from skewless.contract.clock import ManualClock, OffsetClock, SystemClock
    from skewless.contract.decisions import Changes, Crosses, DecisionStream
    from skewless.contract.errors import (
        AccessError,
        BusyError,
        ConflictError,
        DeadlineError,
        DefinitionError,
        GateError,
        PackageError,
        PlaceError,
        RateError,
        RequestError,
        ScopeError,
        SkewlessError,
        SourceError,
        StalePlanError,
        StoreError,
    )
    from skewless.contract.labels import LabelSource, Outcomes
    from skewless.contract.lifecycle import Guardrails, Rollout, Search, Triggers, Watch
    from skewless.contract.policy import Policy
    from skewless.contract.sinks import KafkaSink, KinesisSink, ParquetSink, RedisStreamSink, WebhookSink
    from skewless.contract.spec import Gate, ModelSpec, Split
    from skewless.infra.definitions.sources.duckdb_source import DuckDBSource
    from skewless.project import Project

__all__ = [
    "AccessError",
    "BusyError",
    "Changes",
    "ConflictError",
    "Crosses",
    "DeadlineError",
    "DecisionStream",
    "DefinitionError",
    "DuckDBSource",
    "Explore",
    "Gate",
    "GateError",
    "Guardrails",
    "KafkaSink",
    "KinesisSink",
    "LabelSource",
    "ManualClock",
    "ModelSpec",
    "OffsetClock",
    "Outcomes",
    "PackageError",
    "ParquetSink",
    "PlaceError",
    "Policy",
    "Project",
    "RateError",
    "RedisStreamSink",
    "RequestError",
    "Rollout",
    "ScopeError",
    "Search",
    "SkewlessError",
    "SourceError",
    "Split",
    "StalePlanError",
    "StoreError",
    "SystemClock",
    "Triggers",
    "Watch",
    "WebhookSink",
    "__version__",
]
_HOMES = {
    "skewless.contract.clock": {"ManualClock", "OffsetClock", "SystemClock"},
    "skewless.contract.decisions": {"Changes", "Crosses", "DecisionStream"},
    "skewless.contract.actions": {"Explore"},
    "skewless.contract.labels": {"LabelSource", "Outcomes"},
    "skewless.contract.policy": {"Policy"},
    "skewless.contract.lifecycle": {"Guardrails", "Rollout", "Search", "Triggers", "Watch"},
    "skewless.contract.spec": {"Gate", "ModelSpec", "Split"},
    "skewless.contract.sinks": {"KafkaSink", "KinesisSink", "ParquetSink", "RedisStreamSink", "WebhookSink"},
    "skewless.infra.definitions.sources.duckdb_source": {"DuckDBSource"},
    "skewless.project": {"Project"},
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    home = next((home for home, names in _HOMES.items() if name in names), "skewless.contract.errors")
    return getattr(importlib.import_module(home), name)
