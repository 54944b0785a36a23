"""The target versions: models and versions that a client has loaded or unloaded, for all servers of a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skewless.contract.errors import PackageError
from skewless.infra.storage.documents import Documents
from skewless.infra.storage.project_state import ProjectState

_NAME = "project"


@dataclass(frozen=True, kw_only=True)
class TargetVersions:
    """The models and versions to load or unload, until changed.

    Args:
        unloaded: models that must not be served.
        pinned: per model, the versions to load in addition to the champion.
    """

    unloaded: frozenset[str] = frozenset()
    pinned: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def with_loaded(self, model: str, version: str | None) -> TargetVersions:
        """Return the target versions with a model served again, and with a version of it pinned if given."""
        pinned = dict(self.pinned)
        if version is not None:
            pinned[model] = pinned.get(model, frozenset()) | {version}
        return TargetVersions(unloaded=self.unloaded - {model}, pinned=pinned)

    def with_unloaded(self, model: str) -> TargetVersions:
        """Return the target versions without a model, which is then not served."""
        pinned = {name: versions for name, versions in self.pinned.items() if name != model}
        return TargetVersions(unloaded=self.unloaded | {model}, pinned=pinned)

    def versions(self, model: str) -> frozenset[str]:
        """Return the pinned versions of a model."""
        return self.pinned.get(model, frozenset())


class StoredTargetVersions:
    """The target versions of one project, which all its servers read."""

    def __init__(self, state: ProjectState) -> None:
        self._documents = Documents(state.database, "target_versions")

    def revision(self) -> int:
        """Return a number that increases with each change; 0: there are no target versions."""
        return self._documents.revision(_NAME)

    def read(self) -> TargetVersions:
        """Return the target versions; empty if there are none.

        Raises:
            PackageError: they are corrupt.
            StoreError: the database is unavailable.
        """
        return _decode(self._documents.get(_NAME))

    def load(self, model: str, version: str | None) -> TargetVersions:
        """Load a model, and a version of it in addition to the champion if given; return all target versions."""
        return self._change(lambda versions: versions.with_loaded(model, version))

    def unload(self, model: str) -> TargetVersions:
        """Unload a model; return all target versions."""
        return self._change(lambda versions: versions.with_unloaded(model))

    def _change(self, change: Callable[[TargetVersions], TargetVersions]) -> TargetVersions:
        with self._documents.edit(_NAME, {"pinned": {}, "unloaded": []}) as body:
            versions = change(_decode(body))
            body["pinned"] = {name: sorted(pinned) for name, pinned in versions.pinned.items()}
            body["unloaded"] = sorted(versions.unloaded)
        return versions


def _decode(body: Any) -> TargetVersions:  # noqa: ANN401 - JSON
    if body is None:
        return TargetVersions()
    try:
        pinned = {str(name): frozenset(map(str, versions)) for name, versions in body["pinned"].items()}
        return TargetVersions(unloaded=frozenset(map(str, body["unloaded"])), pinned=pinned)
    except (KeyError, TypeError, AttributeError) as error:
        raise PackageError("target versions", "are corrupt", fix="load or unload the models again") from error
