"""The registry of packages: the versions of models whose files are in a cloud storage. It is in the database."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from skewless.infra.storage.documents import Documents
from skewless.infra.storage.durable import make_folder
from skewless.infra.storage.names import check_file_name
from skewless.infra.storage.objects import StoredObject
from skewless.infra.storage.project_state import ProjectState

MANIFEST = "manifest.json"
_OBJECTS = "packages"  # folder in the storage


class RegisteredPackage(NamedTuple):
    """A version as its writer has registered it.

    Args:
        digest: SHA-256 of the manifest, which identifies all files.
        files: path in the folder -> object.
    """

    digest: str
    files: Mapping[str, StoredObject]


@dataclass(frozen=True)
class PackageRegistry:
    """The registered versions of a project's models.

    Args:
        state: has the database and the storage.
    """

    state: ProjectState

    def list_all(self) -> list[tuple[str, str]]:
        """Return model and version of all registered packages."""
        return [(model, version) for name in self._documents.names() for model, _, version in [name.partition("/")]]

    def read(self, model: str, version: str) -> RegisteredPackage | None:
        """Return a registered version, None if there is none."""
        body = self._documents.get(f"{model}/{version}")
        return None if body is None else _decode(body)

    def upload(self, model: str, files: Mapping[str, Path]) -> dict[str, StoredObject]:
        """Upload files under new names; return the objects by path in the package.

        Raises:
            StoreError: the storage failed.
        """
        prefix, storage = f"{_OBJECTS}/{model}/{uuid.uuid4().hex}", self.state.storage
        return {name: storage.put_file(f"{prefix}/{name}", path) for name, path in files.items()}

    def claim(self, model: str, version: str, manifest: bytes, files: Mapping[str, StoredObject]) -> bool:
        """Register uploaded files as a version; return False, and change nothing, if the version exists.

        Raises:
            StoreError: the database is unavailable; the version may have been registered, if the reply was lost.
        """
        name, body = f"{model}/{version}", _encode(manifest, files)
        # After a lost reply the database is asked again: the version may be ours already.
        return self._documents.create(name, body) or self._documents.get(name) == body

    def replace(self, model: str, version: str, manifest: bytes, files: Mapping[str, StoredObject]) -> None:
        """Register uploaded files in place of those of the version, if it exists."""
        self._documents.put(f"{model}/{version}", _encode(manifest, files))

    def download(self, package: RegisteredPackage, folder: Path) -> None:
        """Put the files of a version into an empty folder.

        Raises:
            StoreError: the storage is unavailable, or an object is missing or altered.
        """
        for path, stored in package.files.items():
            # The database could otherwise name a file outside of the folder.
            target = folder.joinpath(*map(check_file_name, path.split("/")))
            make_folder(target.parent)
            shutil.copyfile(self.state.storage.local_path(stored), target)

    def list_objects(self) -> list[StoredObject]:
        """Return the objects of all versions, latest versions first."""
        bodies = self._documents.list_all()
        names = sorted(bodies, key=lambda name: int(name.rpartition("/")[2]), reverse=True)
        return [stored for name in names for stored in _decode(bodies[name]).files.values()]

    def find_orphans(self, before_us: int) -> list[str]:
        """Return the objects that belong to no version, stored before a time: a writer was interrupted."""
        # Listed before the registry is read, so that a version that is registered meanwhile is known.
        listed = [item.name for item in self.state.storage.list_objects(_OBJECTS) if item.modified_us < before_us]
        return sorted({*listed} - {stored.name for stored in self.list_objects()})

    @property
    def _documents(self) -> Documents:
        return Documents(self.state.database, "package")


def _encode(manifest: bytes, files: Mapping[str, StoredObject]) -> dict[str, Any]:
    digest = hashlib.sha256(manifest).hexdigest()
    return {"manifest": digest, "files": {path: list(stored) for path, stored in files.items()}}


def _decode(body: Any) -> RegisteredPackage:  # noqa: ANN401 - any JSON value
    return RegisteredPackage(body["manifest"], {path: StoredObject(*stored) for path, stored in body["files"].items()})
