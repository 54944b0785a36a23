"""The packages of a project on this machine: all of them, or copies of those in a cloud storage.

With a cloud storage, the database has the registry of the versions: a document with the objects of each.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.contract.errors import PackageError, StoreError
from skewless.contract.names import is_name
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.durable import disk_error, hold_lock, make_folder, rename_durable
from skewless.infra.platform.storage.names import (
    MANIFEST,
    check_file_name,
    check_model_name,
    is_version,
    missing_file_error,
    number,
    package_label,
)
from skewless.infra.platform.storage.objects import DamagedObjectError, StoredObject
from skewless.infra.platform.storage.project_state import ProjectState

_OBJECTS = "packages"  # folder in the storage
_Json = Any  # of a registered version: the SHA-256 of its manifest, and its objects by path


@dataclass(frozen=True)
class PackageFolder:
    """A folder with a folder for each model, and in that one for each version.

    Args:
        root: the folder.
        shared: its storage has the versions, and its database their registry; None: the folder has all versions.
    """

    root: Path
    shared: ProjectState | None = None

    @classmethod
    def of(cls, state: ProjectState) -> PackageFolder:
        """Return the packages of a project."""
        return cls(state / "packages", None if state.storage_url is None else state)

    def list_models(self) -> list[str]:
        """Return the models that have a version, sorted.

        Without a registry these are the folders whose name is a valid model name.
        """
        if self.shared is not None:
            return sorted({model for model, _ in self._list_registered(self.shared)})
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if is_name(path.name) and path.is_dir())

    def list_versions(self, model: str) -> list[str]:
        """Return the versions of a model, oldest first; empty if it was never packaged."""
        check_model_name(model)
        if self.shared is None:
            return self._list_local(model)
        return sorted((version for name, version in self._list_registered(self.shared) if name == model), key=int)

    def next_version(self, model: str) -> str:
        """Return the version after the last one; another writer may use it first."""
        # A database that was restored to an older state may lack a version of which this machine has a copy.
        versions = (*self.list_versions(model), *self._list_local(model))
        return number(max(map(int, versions), default=0) + 1)

    def model_folder(self, model: str) -> Path:
        """Return the folder of a model's versions."""
        return self.root / check_model_name(model)

    def check_version(self, model: str, version: str) -> None:
        """Check that a version exists, without a download.

        Raises:
            PackageError: it does not exist.
        """
        self._find(model, version)

    def version_folder(self, model: str, version: str) -> Path:
        """Return the folder of a version; it is downloaded if this machine has no copy.

        Raises:
            PackageError: the version does not exist, or its files are missing or altered.
            StoreError: the storage is unavailable, and this machine has no copy.
        """
        package, folder = self._find(model, version), self.model_folder(model) / version
        if package is not None and self.shared is not None:
            if not folder.is_dir():
                self._download(self.shared, package, folder)
            if _read_digest(folder, model, version) != package["manifest"]:
                fix = f"delete the folder {folder}; it is downloaded again"
                raise PackageError(package_label(model, version), "has a copy with another manifest", fix=fix)
        return folder

    def has_file(self, model: str, version: str, name: str) -> bool:
        """Return whether a version has a file, here and in the registry, if there is one; raises as above."""
        package, path = self._find(model, version), self.version_folder(model, version) / name
        return path.exists() and (package is None or name in package["files"])

    def manifest_digest(self, model: str, version: str) -> str:
        """Return the digest of a package, which identifies all its files.

        Raises:
            PackageError: the version does not exist, or its manifest is missing.
        """
        package, folder = self._find(model, version), self.model_folder(model) / version
        return _read_digest(folder, model, version) if package is None else str(package["manifest"])

    def upload(self, model: str, staging: Path, names: Iterable[str] | None = None) -> dict[str, StoredObject]:
        """Upload files of a staged folder under new names, if there is a registry; return the objects by path.

        Args:
            names: of the files; None: all.

        Raises:
            StoreError: the storage failed.
        """
        if self.shared is None:
            return {}
        prefix, storage = f"{_OBJECTS}/{model}/{uuid.uuid4().hex}", self.shared.storage
        paths = sorted(staging.rglob("*") if names is None else map(staging.joinpath, names))
        files = {path.relative_to(staging).as_posix(): path for path in paths if path.is_file()}
        return {name: storage.put_file(f"{prefix}/{name}", path) for name, path in files.items()}

    def add_version(self, model: str, version: str, staging: Path, files: Mapping[str, StoredObject]) -> bool:
        """Give a staged folder its version; return False, and change nothing, if the version exists.

        Args:
            files: the uploaded files.

        Raises:
            StoreError: the database is unavailable; the version may have been registered, if the reply was lost.
            OSError: the disk failed.
        """
        if self.shared is not None:
            documents, name, body = _registry(self.shared), f"{model}/{version}", _encode(staging, files)
            # After a lost reply the database is asked again: the version may be ours already.
            if not documents.create(name, body) and documents.get(name) != body:
                return False
        # If there was a folder of a registered version, another process has downloaded the version already.
        return _rename(staging, self.model_folder(model) / version) or self.shared is not None

    def download_all(self) -> None:
        """Download all versions of which this machine has no copy, for a backup."""
        for model in self.list_models():
            for version in self.list_versions(model):
                self.version_folder(model, version)

    def upload_all(self) -> dict[tuple[str, str], dict[str, StoredObject]]:
        """Upload all local versions if there is a registry, for a restoration; return the objects."""
        if self.shared is None or not self.root.is_dir():
            return {}
        models = [path.name for path in self.root.iterdir() if is_name(path.name)]
        versions = [(model, version) for model in models for version in self._list_local(model)]
        return {(model, version): self.upload(model, self.root / model / version) for model, version in versions}

    def register(self, model: str, version: str, files: Mapping[str, StoredObject]) -> None:
        """Register uploaded files in place of those of a version, if there is a registry."""
        if self.shared is not None:
            _registry(self.shared).put(f"{model}/{version}", _encode(self.model_folder(model) / version, files))

    def list_objects(self) -> list[StoredObject]:
        """Return the objects of all registered versions, latest versions first; empty without a registry."""
        bodies = {} if self.shared is None else _registry(self.shared).list_all()
        names = sorted(bodies, key=lambda name: int(name.rpartition("/")[2]), reverse=True)
        return [StoredObject(*stored) for name in names for stored in bodies[name]["files"].values()]

    def find_orphans(self, before_us: int) -> list[str]:
        """Return the objects that belong to no version, stored before a time: a writer was interrupted."""
        if self.shared is None:
            return []
        # Listed before the registry is read, so that a version that is registered meanwhile is known.
        objects = self.shared.storage.list_objects(_OBJECTS)
        listed = {item.name for item in objects if item.modified_us < before_us}
        return sorted(listed - {stored.name for stored in self.list_objects()})

    @contextmanager
    def stage(self, model: str, kind: str) -> Iterator[Path]:
        """Yield a new temporary folder; it is deleted at the end unless it was renamed. One process at a time.

        Args:
            kind: begins its name; leftovers of killed processes of this kind are deleted.
        """
        folder = self.model_folder(model)
        with hold_lock(folder / f".{kind}.lock"):
            for leftover in folder.glob(f".{kind}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=folder))
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _find(self, model: str, version: str) -> _Json | None:
        """Return the registered package, None without a registry; raise if the version does not exist."""
        folder, package = self.model_folder(model), None
        if is_version(version) and self.shared is not None:
            package = _registry(self.shared).get(f"{model}/{version}")
        if package is None and not (is_version(version) and self.shared is None and (folder / version).is_dir()):
            fix = f"use one of {self.list_versions(model)}"
            raise PackageError(f"model {model!r}", "has no such version", value=version, fix=fix)
        return package

    def _list_local(self, model: str) -> list[str]:
        folder = self.model_folder(model)
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted((name for name in names if is_version(name)), key=int)

    def _list_registered(self, shared: ProjectState) -> list[tuple[str, str]]:
        return [(model, version) for name in _registry(shared).names() for model, _, version in [name.partition("/")]]

    def _download(self, shared: ProjectState, package: _Json, folder: Path) -> None:
        try:
            with self.stage(folder.parent.name, "copy") as staging:
                if folder.is_dir():  # another process was faster
                    return
                for path, stored in package["files"].items():
                    # The database could otherwise name a file outside of the folder.
                    target = staging.joinpath(*map(check_file_name, path.split("/")))
                    make_folder(target.parent)
                    shutil.copyfile(shared.storage.local_path(StoredObject(*stored)), target)
                _rename(staging, folder)
        except OSError as error:
            raise disk_error(folder, error) from error
        except StoreError as error:
            thing = package_label(folder.parent.name, folder.name)
            problem = f"cannot be downloaded: {error.cause().removeprefix('log ')}"
            if isinstance(error, DamagedObjectError):
                raise PackageError(thing, problem, fix="use another version, or train again") from error
            raise StoreError(thing, problem, fix=error.fix) from error


def _registry(shared: ProjectState) -> Documents:
    return Documents(shared.database, "package")


def _encode(folder: Path, files: Mapping[str, StoredObject]) -> _Json:
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    return {"manifest": digest, "files": {path: list(stored) for path, stored in files.items()}}


def _rename(staging: Path, folder: Path) -> bool:
    """Rename a folder; return False, and change nothing, if the other folder exists."""
    for path in (staging, *staging.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    try:
        rename_durable(staging, folder)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
        return False
    return True


def _read_digest(folder: Path, model: str, version: str) -> str:
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise missing_file_error(package_label(model, version), MANIFEST) from error
