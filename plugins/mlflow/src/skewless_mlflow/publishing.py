"""Publishing trained versions to a tracker.

Packages are the source of truth of a tracker: missing versions are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skewless.contract.errors import DefinitionError, PackageError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.models.packages.package import open_package
from skewless.infra.platform.storage.leases import Leases
from skewless.workspace import Workspace
from skewless_mlflow.tracked_run import Tracker, describe_package
from skewless_mlflow.tracker import MLflowTracker

_OURS = {"champion", "challenger"}  # users manage other aliases of the tracker


@dataclass(frozen=True, kw_only=True)
class PublishReport(PlainRecord):
    """The published versions of one model.

    Args:
        published: added versions, oldest first.
        aliases: changed aliases with their versions; None: deleted.
        skipped: versions that cannot be published, with the reason.
    """

    model: str
    published: list[str]
    aliases: dict[str, str | None]
    skipped: dict[str, str]

    def line(self) -> str:
        """Return the result in a sentence."""
        versions = f"published {', '.join(self.published)}" if self.published else "nothing to publish"
        moved = "".join(f"; {alias} is {version or 'deleted'}" for alias, version in self.aliases.items())
        skipped = "".join(f"; {version} skipped: {why}" for version, why in self.skipped.items())
        return f"{self.model}: {versions}{moved}{skipped}"


class MLflowTracking:
    """The tracker of a project, opened; see ``open_tracker``."""

    def __init__(self, project: Workspace) -> None:
        self._project, self._tracker = project, open_tracker(project)

    def publish(self, models: Sequence[str]) -> list[PublishReport]:
        """Publish the versions that the tracker lacks, and their aliases; see ``publish``."""
        return publish(self._project, self._tracker, models)


def open_tracker(project: Workspace) -> MLflowTracker:
    """Return the tracker that the settings name.

    Raises:
        DefinitionError: the setting is missing or invalid.
        StoreError: the tracker is unavailable.
    """
    uri = project.settings.tracking_uri
    if uri is None:
        raise DefinitionError(
            "setting 'tracking_uri'", "is not set", fix="set it to sqlite:///mlflow.db or a server's URL"
        )
    return MLflowTracker(uri, project.repo, project.applied.plan.project)


def publish(
    project: Workspace, tracker: Tracker, models: Sequence[str] = (), *, dry: bool = False
) -> list[PublishReport]:
    """Publish the versions that the tracker lacks, and copy the aliases of the packages to it.

    Args:
        models: names; empty: all trained models.
        dry: publish nothing.

    Raises:
        StoreError: the tracker is unavailable or fails; the next call publishes the rest.
    """
    with Leases(project.state.database).hold("tracking"):
        return [_publish_model(project, tracker, name, dry=dry) for name in models or project.packages.list_models()]


def _publish_model(project: Workspace, tracker: Tracker, model: str, *, dry: bool) -> PublishReport:
    packages, published_digests = project.packages, tracker.published_digests(model)
    digests = {name: packages.manifest_digest(model, name) for name in packages.list_versions(model)}
    published, skipped = [], dict[str, str]()
    for version in (name for name, digest in digests.items() if digest not in published_digests):
        try:
            run = describe_package(open_package(project.store, model, version))
        except PackageError as error:
            skipped[version] = error.problem
            continue
        if not dry:
            tracker.publish(run)
        published.append(version)
    known = {name: digest for name, digest in digests.items() if name not in skipped}
    moved = _alias_changes(project, tracker, model, known)
    for alias, target in () if dry else moved.items():
        tracker.point(model, alias, None if target is None else known[target])
    return PublishReport(model=model, published=published, aliases=moved, skipped=skipped)


def _alias_changes(
    project: Workspace, tracker: Tracker, model: str, digests: Mapping[str, str]
) -> dict[str, str | None]:
    """Return the aliases whose version differs in the tracker; None: the project has no such alias."""
    aliases, policy = project.store.aliases, project.store.traffic.get(model)
    own = {alias: aliases.get(model, alias) for alias in aliases.names(model)}
    if policy is not None:
        own |= {"champion": policy.champion, "challenger": policy.challenger}
    targets = {alias: version for alias, version in own.items() if version is not None and version in digests}
    tracked = tracker.aliases(model)
    moved: dict[str, str | None] = {
        alias: version for alias, version in targets.items() if tracked.get(alias) != digests[version]
    }
    return moved | dict.fromkeys(_OURS & tracked.keys() - targets.keys())
