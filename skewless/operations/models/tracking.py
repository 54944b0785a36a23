"""The port of experiment trackers: what a training does with the tracker of the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.platform.host.plugins import require_plugin
from skewless.workspace import Workspace

_TRACKER = "mlflow"  # the only one that the setting can name


class Tracking(Protocol):
    """The opened tracker of a project. Packages are the source of truth; a tracker has copies."""

    def publish(self, models: Sequence[str]) -> object:
        """Publish the versions of models that the tracker lacks, and their aliases.

        Raises:
            StoreError: the tracker is unavailable or fails; the next call publishes the rest.
        """
        ...


def check_tracker(project: Workspace) -> None:
    """Check, before a training, that its version can be published; an unavailable tracker gets it later.

    Raises:
        DefinitionError: the setting is invalid, or the tracker is not installed.
    """
    if project.settings.tracking_uri is not None:
        with suppress(StoreError):
            _open(project)


def publish_if_set(project: Workspace, models: Sequence[str]) -> SkewlessError | None:
    """Publish versions after a training, if a tracker is set; return the error instead of raising it."""
    if project.settings.tracking_uri is None:
        return None
    try:
        _open(project).publish(models)
    except StoreError as error:
        return error
    return None


def _open(project: Workspace) -> Tracking:
    open_tracking: Callable[[Workspace], Tracking] = require_plugin("skewless.trackers", _TRACKER)
    return open_tracking(project)
