"""Why each model is trained: whether its definitions differ from those of its champion or its rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skewless.infra.packages.package import Package
    from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class TrainingCause:
    """What a training of a model changes.

    Args:
        version: the champion, or the version in rollout that has the definitions; None: there is no champion.
        reasons: the differences of the definitions from that version; empty: there are none.
        dataset: digest of that version's training data; empty: there are differences, or its package cannot be read.
    """

    model: str
    version: str | None
    reasons: tuple[str, ...]
    dataset: str = ""

    def sentence(self, package: Package | None = None) -> str:
        """Return the cause in a sentence; with the new package, also whether its data are the same."""
        if self.version is None:
            return f"{self.model}: trained because it has no champion"
        if self.reasons:
            return f"{self.model}: trained because its definitions differ from version {self.version}: " + ", ".join(
                self.reasons
            )
        text = f"{self.model}: trained again: version {self.version} has the same definitions"
        is_same = package is not None and self.dataset and package.fingerprint.get("dataset") == self.dataset
        return f"{text} and the same training data" if is_same else text


def read_training_causes(project: Workspace) -> dict[str, TrainingCause]:
    """Return the cause of a training now, for each model of the applied plan."""
    applied = project.applied
    effects, _ = project.planner.find_effects(applied.plan, applied.plan)
    needed = {item.model: item for item in effects.find_trainings(applied.models)}
    causes = {}
    for spec in applied.models:
        name = spec.name
        if name in needed:
            item = needed[name]
            causes[name] = TrainingCause(model=name, version=item.version, reasons=item.reasons)
            continue
        version = effects.find_ready_challenger(spec) or effects.champions[name].version
        causes[name] = TrainingCause(
            model=name, version=version, reasons=(), dataset=_read_dataset(project, name, version)
        )
    return causes


def _read_dataset(project: Workspace, model: str, version: str) -> str:
    from skewless.contract.errors import PackageError
    from skewless.infra.packages.package import open_package

    try:
        return str(open_package(project.store, model, version).fingerprint.get("dataset", ""))
    except PackageError:
        return ""
