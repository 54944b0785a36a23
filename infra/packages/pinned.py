"""The plan that a package pins: what it was trained on, whatever became of the plan in force."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skewless.contract.errors import PackageError
from skewless.contract.plan import FeaturePlan
from skewless.infra.packages.manifest import verified_file
from skewless.infra.packages.package import Package
from skewless.infra.packages.store import PackageStore
from skewless.infra.storage.names import version_folder


def pin(plan: FeaturePlan, vocabularies: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a package stores as its plan: the pinned part and the vocabularies."""
    return {"features": plan.as_dict(), "hash": plan.hash, "vocabularies": dict(vocabularies)}


def pinned_plan(package: Package) -> FeaturePlan:
    """Return the plan that a package pins.

    Raises:
        PackageError: the plan is not the one that its hash names.
    """
    return _unpinned(package.plan, f"package {package.name} {package.version}")


def read_pinned_plan(store: PackageStore, name: str, version: str) -> FeaturePlan:
    """Return the plan that a version pins, whatever became of the other files of its package.

    Raises:
        PackageError: there is no such version, nobody trusted has signed it, or the plan is altered.
    """
    owner, folder = f"package {name} {version}", version_folder(store.root, name, version)
    try:
        return _unpinned(json.loads(verified_file(folder, name, version, "plan.json", store.trust)), owner)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(owner, "has a plan that cannot be read", fix="restore the file plan.json") from error


def _unpinned(pinned: Mapping[str, Any], owner: str) -> FeaturePlan:
    plan = FeaturePlan.from_dict(pinned["features"])
    if plan.hash != pinned["hash"]:
        raise PackageError(
            owner,
            "holds a plan with another hash than it says",
            value=plan.hash,
            fix="train again with this version of skewless",
        )
    return plan
