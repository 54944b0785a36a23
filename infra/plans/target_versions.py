"""The target versions: models and versions that a client has loaded or unloaded, in a file that all workers read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from skewless.contract.errors import PackageError
from skewless.infra.storage.durable import hold_lock, replace_durable
from skewless.infra.storage.project_state import ProjectState

FILE = "wanted.json"


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


class TargetVersionsFile:
    """Stores the target versions of one project in a file that the workers of one machine share."""

    def __init__(self, state: ProjectState) -> None:
        self._path = state / FILE

    def read(self) -> TargetVersions:
        """Return the target versions; empty if the file is missing.

        Raises:
            PackageError: the file is corrupt.
        """
        try:
            data = json.loads(self._path.read_bytes())
            pinned = {str(name): frozenset(map(str, versions)) for name, versions in data["pinned"].items()}
            return TargetVersions(unloaded=frozenset(map(str, data["unloaded"])), pinned=pinned)
        except FileNotFoundError:
            return TargetVersions()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PackageError(
                f"file {self._path.name!r}", "is corrupt", fix="remove it: then only champions are served"
            ) from error

    def load(self, model: str, version: str | None) -> TargetVersions:
        """Load a model, and a version of it in addition to the champion if given; return all target versions."""
        with hold_lock(self._path.with_suffix(".lock")):
            return self._write(self.read().with_loaded(model, version))

    def unload(self, model: str) -> TargetVersions:
        """Unload a model; return all target versions."""
        with hold_lock(self._path.with_suffix(".lock")):
            return self._write(self.read().with_unloaded(model))

    def _write(self, versions: TargetVersions) -> TargetVersions:
        data = {key: _plain(value) for key, value in asdict(versions).items()}
        replace_durable(self._path, json.dumps(data, sort_keys=True).encode())
        return versions


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return sorted(value) if isinstance(value, frozenset) else value
