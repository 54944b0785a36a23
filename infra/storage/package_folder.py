"""The packages of a project on this machine: all of them, or copies of those in a cloud storage."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.errors import PackageError, StoreError
from skewless.contract.names import is_name
from skewless.infra.storage.durable import disk_error, hold_lock, sync_file, sync_folder
from skewless.infra.storage.names import check_model_name, is_version, number
from skewless.infra.storage.objects import DamagedObjectError, StoredObject
from skewless.infra.storage.package_registry import MANIFEST, PackageRegistry, RegisteredPackage
from skewless.infra.storage.project_state import ProjectState


@dataclass(frozen=True)
class PackageFolder:
    """A folder with a folder for each model, and in that one for each version.

    Args:
        root: the folder.
        registry: the versions in the storage, of which the folder has copies; None: the folder has all versions.
    """

    root: Path
    registry: PackageRegistry | None = None

    @classmethod
    def of(cls, state: ProjectState) -> PackageFolder:
        """Return the packages of a project."""
        return cls(state / "packages", None if state.storage_url is None else PackageRegistry(state))

    def list_models(self) -> list[str]:
        """Return the models that have a version, sorted.

        Without a registry these are the folders whose name is a valid model name.
        """
        if self.registry is not None:
            return sorted({model for model, _ in self.registry.list_all()})
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if is_name(path.name) and path.is_dir())

    def list_versions(self, model: str) -> list[str]:
        """Return the versions of a model, oldest first; empty if it was never packaged."""
        check_model_name(model)
        if self.registry is None:
            return self._list_local(model)
        return sorted((version for name, version in self.registry.list_all() if name == model), key=int)

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
        if package is not None and self.registry is not None:
            if not folder.is_dir():
                self._download(self.registry, package, folder)
            if _read_digest(folder, model, version) != package.digest:
                fix = f"delete the folder {folder}; it is downloaded again"
                raise PackageError(_label(model, version), "has a copy with another manifest", fix=fix)
        return folder

    def manifest_digest(self, model: str, version: str) -> str:
        """Return the digest of a package, which identifies all its files.

        Raises:
            PackageError: the version does not exist, or its manifest is missing.
        """
        package = self._find(model, version)
        return _read_digest(self.model_folder(model) / version, model, version) if package is None else package.digest

    def upload(self, model: str, staging: Path, names: Iterable[str] | None = None) -> dict[str, StoredObject]:
        """Upload files of a staged folder if there is a registry; return the objects by path.

        Args:
            names: of the files; None: all.

        Raises:
            StoreError: the storage failed.
        """
        if self.registry is None:
            return {}
        paths = sorted(staging.rglob("*") if names is None else map(staging.joinpath, names))
        files = {path.relative_to(staging).as_posix(): path for path in paths if path.is_file()}
        return self.registry.upload(model, files)

    def add_version(self, model: str, version: str, staging: Path, files: Mapping[str, StoredObject]) -> bool:
        """Give a staged folder its version; return False, and change nothing, if the version exists.

        Args:
            files: the uploaded files.

        Raises:
            StoreError: the database is unavailable.
            OSError: the disk failed.
        """
        if self.registry is not None:
            if not self.registry.claim(model, version, (staging / MANIFEST).read_bytes(), files):
                return False
            _rename(staging, self.model_folder(model) / version)
            return True  # if there was a folder, another process has downloaded the version already
        return _rename(staging, self.model_folder(model) / version)

    def download_all(self) -> None:
        """Download all versions of which this machine has no copy, for a backup."""
        for model in self.list_models():
            for version in self.list_versions(model):
                self.version_folder(model, version)

    def upload_all(self) -> dict[tuple[str, str], dict[str, StoredObject]]:
        """Upload all local versions if there is a registry, for a restoration; return the objects."""
        if self.registry is None or not self.root.is_dir():
            return {}
        models = [path.name for path in self.root.iterdir() if is_name(path.name)]
        versions = [(model, version) for model in models for version in self._list_local(model)]
        return {(model, version): self.upload(model, self.root / model / version) for model, version in versions}

    def register(self, model: str, version: str, files: Mapping[str, StoredObject]) -> None:
        """Register uploaded files of a local version, if there is a registry."""
        if self.registry is not None:
            manifest = (self.model_folder(model) / version / MANIFEST).read_bytes()
            self.registry.replace(model, version, manifest, files)

    def find_orphans(self, before_us: int) -> list[str]:
        """Return the objects in the storage that belong to no version, stored before a time."""
        return [] if self.registry is None else self.registry.find_orphans(before_us)

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
                # mkdtemp makes a folder that only its owner may enter.
                staging.chmod(0o755)
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _find(self, model: str, version: str) -> RegisteredPackage | None:
        """Return the registered package, None without a registry; raise if the version does not exist."""
        folder, package = self.model_folder(model), None
        if is_version(version) and self.registry is not None:
            package = self.registry.read(model, version)
        if package is None and not (is_version(version) and self.registry is None and (folder / version).is_dir()):
            fix = f"use one of {self.list_versions(model)}"
            raise PackageError(f"model {model!r}", "has no such version", value=version, fix=fix)
        return package

    def _list_local(self, model: str) -> list[str]:
        folder = self.model_folder(model)
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted((name for name in names if is_version(name)), key=int)

    def _download(self, registry: PackageRegistry, package: RegisteredPackage, folder: Path) -> None:
        model, version = folder.parent.name, folder.name
        try:
            with self.stage(model, "copy") as staging:
                if folder.is_dir():  # another process was faster
                    return
                registry.download(package, staging)
                _sync_files(staging)
                _rename(staging, folder)
                sync_folder(folder.parent)
        except OSError as error:
            raise disk_error(folder, error) from error
        except StoreError as error:
            thing, problem = _label(model, version), f"cannot be downloaded: {error.cause().removeprefix('log ')}"
            if isinstance(error, DamagedObjectError):
                raise PackageError(thing, problem, fix="use another version, or train again") from error
            raise StoreError(thing, problem, fix=error.fix) from error


def _sync_files(staging: Path) -> None:
    """Wait until the files of a staged folder, and their names, are on disk."""
    for path in staging.rglob("*"):
        (sync_folder if path.is_dir() else sync_file)(path)
    sync_folder(staging)


def _rename(staging: Path, folder: Path) -> bool:
    """Rename a folder; return False, and change nothing, if the other folder exists."""
    try:
        os.rename(staging, folder)  # noqa: PTH104 - Path.rename would first need a check
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
        return False
    return True


def _read_digest(folder: Path, model: str, version: str) -> str:
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        fix = "restore the folder or use another version"
        raise PackageError(_label(model, version), "lacks a file", value=MANIFEST, fix=fix) from error


def _label(model: str, version: str) -> str:
    return f"package {model!r} version {version!r}"
