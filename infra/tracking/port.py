"""The port of everything that shows trainings to people: packages are the truth, a tracker holds copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


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
