"""What the tracker receives of a package, and what publishing needs of a tracker."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from skewless.infra.models.packages.package import Package

_PARAMS = ("algorithm", "task", "time_mode", "rounds", "class_weight", "seed", "service", "horizon", "missing")
_NESTED_PARAMS = ("params", "split", "gate", "search")
_LONGEST_VALUE = 500  # the longest that every version of MLflow accepts


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One trained version, as a tracker shows it.

    Args:
        model: the model's name.
        version: version of its package.
        digest: digest of its package, which identifies the run.
        trained_us: time of training, microseconds.
        params: choices before training.
        metrics: measurements after training.
        tags: its origin: plan, data, code.
        package: the package folder, which is copied.
        curves: of its evaluation, for plots; see ``Package.curves``.
        documents: additional texts, by their paths.
    """

    model: str
    version: str
    digest: str
    trained_us: int
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    package: Path
    curves: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)


class Tracker(Protocol):
    """Runs and registered versions of models. Every call is idempotent; a failed call is repeated later.

    All calls block. One process at a time publishes: the caller holds a lock.

    Raises:
        StoreError: the tracker does not answer, or rejects the call. Earlier publications stay.
    """

    def published_digests(self, model: str) -> frozenset[str]:
        """Return the digests of the completely published versions."""
        ...

    def publish(self, run: TrackedRun) -> None:
        """Publish a run and register its version; complete an earlier attempt that failed."""
        ...

    def aliases(self, model: str) -> dict[str, str]:
        """Return the digest of each alias's version."""
        ...

    def point(self, model: str, alias: str, digest: str | None) -> None:
        """Point an alias at a published version; None: delete the alias."""
        ...


def describe_package(package: Package) -> TrackedRun:
    """Return the run that describes a package."""
    importance = package.about.get("importance")
    documents = {"importance.json": json.dumps(importance, indent=1, sort_keys=True)} if importance else {}
    return TrackedRun(
        model=package.name,
        version=package.version,
        digest=package.digest,
        trained_us=int(package.about.get("as_of_us", 0)),
        params=_params(package.spec.as_dict()) | {"rounds_used": str(package.about.get("rounds"))},
        metrics={name: float(value) for name, value in package.metrics.items() if _is_number(value)},
        tags=_tags(package),
        package=package.path,
        curves=package.curves,
        documents=documents,
    )


def _params(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the choices of a spec, nested names joined by dots.

    >>> _params({"rounds": 5, "params": {"eta": 0.1}, "name": "m"})
    {'rounds': '5', 'params.eta': '0.1'}
    """
    flat = {name: spec[name] for name in _PARAMS if name in spec}
    flat |= {f"{part}.{name}": value for part in _NESTED_PARAMS for name, value in (spec.get(part) or {}).items()}
    return {name: str(value)[:_LONGEST_VALUE] for name, value in flat.items() if value is not None}


def _tags(package: Package) -> dict[str, str]:
    transforms = {item["name"]: item["function"] for item in package.plan["features"]["transforms"]}
    tags = {
        "skewless.model": package.name,
        "skewless.plan": package.plan["hash"],
        "skewless.dataset": package.fingerprint.get("dataset"),
        "skewless.library": package.about.get("library"),
        "skewless.transforms": json.dumps(transforms) if transforms else None,
    }
    return {name: str(value) for name, value in tags.items() if value is not None}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
