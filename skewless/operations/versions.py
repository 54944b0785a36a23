"""The versions of a model, with their metrics, aliases and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import PackageError

if TYPE_CHECKING:
    from skewless.infra.packages.package import Package
    from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version.

    Args:
        trained_at: ISO 8601; None: its package cannot be read.
        aliases: its current aliases.
        metrics: of its own evaluation.
        rows: number of training rows.
        plan_hash: hash of the part of the feature plan that it pins, as in replies; None: its package cannot be read.
        decision: last decision of the gate, plain values; None: there is none.
        problem: why its package cannot be used; empty: it can.
    """

    version: str
    trained_at: str | None = None
    aliases: tuple[str, ...] = ()
    metrics: Mapping[str, float | None] | None = None
    rows: int | None = None
    plan_hash: str | None = None
    decision: Mapping[str, Any] | None = None
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class VersionsReport:
    """All versions of a model and all changes of its aliases, the latest first.

    Args:
        metric: the gate's.
        moves: ``alias``, ``number``, ``expect``, ``to``, ``reason``, ``at_us``.
    """

    model: str
    metric: str
    versions: tuple[Version, ...]
    moves: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        listed = [version.as_dict() for version in self.versions]
        return {"model": self.model, "metric": self.metric, "versions": listed, "moves": list(self.moves)}


def open_champion(project: Workspace, model: str) -> Package:
    """Return the package of a model's champion.

    Raises:
        PackageError: the model has no champion, or the package was altered.
    """
    from skewless.infra.packages.package import open_package

    version = project.store.aliases.get(model, "champion")
    if version is None:
        raise PackageError(f"model {model!r}", "has no champion", fix=f"run `skewless train {model}`")
    return open_package(project.store, model, version)


def read_versions(project: Workspace, model: str) -> VersionsReport:
    """Return the versions of a model of the plan; changes nothing.

    Raises:
        RequestError: the plan has no such model.
    """
    metric, aliases = project.applied.model(model).gate.metric, project.store.aliases
    holders = {name: aliases.get(model, name) for name in aliases.names(model)}
    decisions: dict[str, dict[str, Any]] = {}
    for decision in project.store.decisions.read_latest_first(model):
        decisions.setdefault(decision["version"], decision)
    versions = [
        _version(project, model, version, holders, decisions.get(version))
        for version in reversed(project.packages.list_versions(model))
    ]
    moves = [{"alias": name, **asdict(move)} for name in holders for move in aliases.read_latest_first(model, name)]
    moves.sort(key=lambda move: (move["at_us"], move["number"]), reverse=True)
    return VersionsReport(model=model, metric=metric, versions=tuple(versions), moves=tuple(moves))


def _version(
    project: Workspace, model: str, version: str, holders: Mapping[str, str | None], decision: Mapping[str, Any] | None
) -> Version:
    from skewless.infra.packages.package import open_package, pinned_plan

    held = tuple(name for name, holder in holders.items() if holder == version)
    try:
        package = open_package(project.store, model, version)
        plan_hash = pinned_plan(package).hash
    except PackageError as error:
        return Version(version=version, aliases=held, decision=decision, problem=f"{error.problem}: {error.value}")
    return Version(
        version=version,
        trained_at=package.about.get("trained_at"),
        aliases=held,
        metrics=package.metrics,
        rows=package.fingerprint.get("train_rows"),
        plan_hash=plan_hash,
        decision=decision,
    )
