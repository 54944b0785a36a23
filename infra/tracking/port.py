"""The port of everything that shows trainings to people, and what is shown of a package.

Packages are the truth, a tracker holds copies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from skewless.infra.packages.package import Package

_CHOSEN = ("algorithm", "task", "time_mode", "rounds", "class_weight", "seed", "service", "horizon", "missing")
_NESTED = ("params", "split", "gate", "search")
_LONGEST_VALUE = 500  # what every version of MLflow takes


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One training, as it is shown.

    Args:
        model: the model's name.
        version: of its package.
        digest: of its package: what a run is known by.
        trained_us: when, microseconds.
        params: what was chosen before.
        metrics: what was measured after.
        tags: where it comes from: plan, data, code.
        package: the folder, which is copied whole.
        documents: texts beside it (plots, curves), by their paths.
    """

    model: str
    version: str
    digest: str
    trained_us: int
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    package: Path
    documents: Mapping[str, str] = field(default_factory=dict)


class Tracker(Protocol):
    """Runs and registered versions of models; every call may be repeated, and a call that failed is.

    All calls block. One process at a time publishes: who calls holds a lock.

    Raises:
        StoreError: the tracker is away, or refuses. What was published before stays.
    """

    def published(self, model: str) -> frozenset[str]:
        """Return the digests of the versions that are published whole."""
        ...

    def publish(self, run: TrackedRun) -> None:
        """Publish a run and register its version; what an attempt before this one left is finished."""
        ...

    def aliases(self, model: str) -> dict[str, str]:
        """Return the digest that each alias points at."""
        ...

    def point(self, model: str, alias: str, digest: str | None) -> None:
        """Point an alias at a published version; at none: there is no such alias any more."""
        ...


def described(package: Package, documents: Mapping[str, str]) -> TrackedRun:
    """Return a package as a run.

    Args:
        documents: texts to be shown beside it, by path.
    """
    return TrackedRun(
        model=package.name,
        version=package.version,
        digest=package.digest,
        trained_us=int(package.about.get("as_of_us", 0)),
        params=_params(package.spec.as_dict()) | {"rounds_used": str(package.about.get("rounds"))},
        metrics={name: float(value) for name, value in package.metrics.items() if _is_number(value)},
        tags=_tags(package),
        package=package.path,
        documents={**documents, **_importance(package)},
    )


def _params(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return what was chosen, nested names joined by dots.

    >>> _params({"rounds": 5, "params": {"eta": 0.1}, "name": "m"})
    {'rounds': '5', 'params.eta': '0.1'}
    """
    flat = {name: spec[name] for name in _CHOSEN if name in spec}
    flat |= {f"{part}.{name}": value for part in _NESTED for name, value in (spec.get(part) or {}).items()}
    return {name: str(value)[:_LONGEST_VALUE] for name, value in flat.items() if value is not None}


def _tags(package: Package) -> dict[str, str]:
    transforms = {item["name"]: item["function"] for item in package.plan["features"]["transforms"]}
    found = {
        "skewless.model": package.name,
        "skewless.plan": package.plan["hash"],
        "skewless.dataset": package.fingerprint.get("dataset"),
        "skewless.library": package.about.get("library"),
        "skewless.transforms": json.dumps(transforms) if transforms else None,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _importance(package: Package) -> dict[str, str]:
    found = package.about.get("importance")
    return {"importance.json": json.dumps(found, indent=1, sort_keys=True)} if found else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
