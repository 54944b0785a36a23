"""A version that is written, decided about and promoted under the eyes of ``kills``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from skewless.contract.settings import Settings
from skewless.infra.models.packages.package import Package, PackageContents, open_package
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.packages.writer import write_package
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.training.decision import Decision
from skewless.training.promotion import CHAMPION, record_decision
from tests.reliability.kills import Steps
from tests.worlds.addresses import ProjectAddresses

MODEL = "fraud"


def store_of(state: ProjectState) -> PackageStore:
    """Return the packages of a project, as its settings without a word of ours say."""
    return PackageStore.of(state, Settings())


def promote_again(store: PackageStore) -> str:
    """Write the first version anew under the next number and make it champion; return its version."""
    first = open_package(store, MODEL, "000001")
    version = write_package(store, MODEL, _contents(first)).version
    decision = Decision(promote=True, reason=f"for {version}", candidate=0.7, champion=0.6)
    record_decision(first.spec, version, decision, store, 7, expect=store.aliases.get(MODEL, CHAMPION))
    return version


def _contents(package: Package) -> PackageContents:
    parts = ("spec", "plan", "reference", "profile", "metrics", "fingerprint", "about", "bounds", "curves", "extra")
    return PackageContents(
        model_name=package.model_file.name,
        model=package.model_file.read_bytes(),
        **{part: getattr(package, part) for part in parts},
    )


def order_of(folder: Path, addresses: ProjectAddresses) -> dict[str, Any]:
    """Return the order to promote once in the project of a state folder."""
    return {"folder": str(folder), "addresses": asdict(addresses)}


def act(steps: Steps, order: dict[str, Any]) -> None:
    """Promote once."""
    folder = Path(order["folder"])
    steps.watch(folder)
    promote_again(store_of(ProjectAddresses(**order["addresses"]).state(folder)))
