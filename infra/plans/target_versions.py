"""What somebody wants to be served besides the champions, in a file that every worker reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from skewless.contract.errors import PackageError
from skewless.infra.storage.durable import hold_lock, replace_durable

FILE = "wanted.json"


@dataclass(frozen=True, kw_only=True)
class TargetVersions:
    """Wishes that stand until they are taken back.

    Args:
        unloaded: models that are not to be served.
        pinned: per model, versions that are to be loaded besides the champion.
    """

    unloaded: frozenset[str] = frozenset()
    pinned: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def loaded(self, model: str, version: str | None) -> TargetVersions:
        """Return the wishes with a model served again, and one of its versions pinned, if it is named."""
        pinned = dict(self.pinned)
        if version is not None:
            pinned[model] = pinned.get(model, frozenset()) | {version}
        return TargetVersions(unloaded=self.unloaded - {model}, pinned=pinned)

    def without(self, model: str) -> TargetVersions:
        """Return the wishes with a model not to be served."""
        pinned = {name: versions for name, versions in self.pinned.items() if name != model}
        return TargetVersions(unloaded=self.unloaded | {model}, pinned=pinned)

    def versions(self, model: str) -> frozenset[str]:
        """Return the versions of a model that are pinned."""
        return self.pinned.get(model, frozenset())


class TargetVersionsFile:
    """Keeps the wishes of one project; workers on one machine share it."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE

    def read(self) -> TargetVersions:
        """Return the wishes; none, if nobody ever had one.

        Raises:
            PackageError: the file is damaged.
        """
        try:
            data = json.loads(self._path.read_bytes())
            pinned = {str(name): frozenset(map(str, versions)) for name, versions in data["pinned"].items()}
            return TargetVersions(unloaded=frozenset(map(str, data["unloaded"])), pinned=pinned)
        except FileNotFoundError:
            return TargetVersions()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PackageError(
                f"file {self._path.name!r}", "is damaged", fix="remove it: champions are served"
            ) from error

    def load(self, model: str, version: str | None) -> TargetVersions:
        """Want a model served, and one of its versions besides the champion, if it is named; return all wishes."""
        with hold_lock(self._path.with_suffix(".lock")):
            return self._write(self.read().loaded(model, version))

    def unload(self, model: str) -> TargetVersions:
        """Want a model not served; return all wishes."""
        with hold_lock(self._path.with_suffix(".lock")):
            return self._write(self.read().without(model))

    def _write(self, wanted: TargetVersions) -> TargetVersions:
        data = {key: _plain(value) for key, value in asdict(wanted).items()}
        replace_durable(self._path, json.dumps(data, sort_keys=True).encode())
        return wanted


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return sorted(value) if isinstance(value, frozenset) else value
