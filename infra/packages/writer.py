"""Writes a model package: first into a temporary folder, which one rename then gives its version number."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from skewless.infra.packages.manifest import MANIFEST, encode_manifest, verify_folder
from skewless.infra.packages.package import Package, PackageContents, open_package
from skewless.infra.packages.signing import SIGNATURE
from skewless.infra.packages.store import PackageStore
from skewless.infra.storage.durable import create_durable, disk_error, hold_lock, sync_folder, write_durable
from skewless.infra.storage.names import list_versions, model_folder, number, version_folder

_LEFTOVER = ".new-"


def write_package(store: PackageStore, name: str, contents: PackageContents) -> Package:
    """Sign and write the next version of a model and return it, read back and verified.

    A kill at any point leaves no new version or a complete new version; the next write deletes its temporary folder.

    Args:
        store: the packages of a project; its folder and signing key are created if they do not exist.
        name: the model's name.
        contents: the contents to write.

    Raises:
        PackageError: a name or value cannot be packaged.
        DefinitionError: the signing key is not trusted, so nobody could load the package.
        PlaceError: the signing key cannot be read.
        StoreError: the disk refused the write; nothing was added.
    """
    folder = model_folder(store.root, name)
    files = contents.files()
    # Before anything is written: nobody could load a package with an untrusted signature.
    store.check_signer()
    try:
        with hold_lock(folder / ".lock"):
            _sweep(folder)
            version = _write_version(store, name, contents.model_name, files)
    except OSError as error:
        raise disk_error(folder, error) from error
    return open_package(store, name, version)


def sign_package(store: PackageStore, name: str, version: str, *, dry: bool = False) -> None:
    """Sign a package without a signature, for example from a release that did not sign packages.

    Args:
        dry: only check whether it can be signed.

    Raises:
        PackageError: the version does not exist, it is altered, or it has an untrusted signature.
        StoreError: the disk refused the write.
    """
    store.check_signer()
    folder = version_folder(store.root, name, version)
    package = verify_folder(folder, name, version, replace(store.trust, unsigned=True))
    if not dry:
        with suppress(FileExistsError):
            create_durable(folder / SIGNATURE, store.signer.sign(package.manifest))


def is_signed(store: PackageStore, name: str, version: str) -> bool:
    """Return whether a package has a signature, trusted or not."""
    return (version_folder(store.root, name, version) / SIGNATURE).exists()


def _write_version(store: PackageStore, name: str, model_file: str, files: dict[str, bytes]) -> str:
    """Write the files into a temporary folder and rename it to the next free version."""
    folder = model_folder(store.root, name)
    staging = Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=folder))
    try:
        for path, data in files.items():
            (staging / path).parent.mkdir(exist_ok=True)
            write_durable(staging / path, data)
        # mkdtemp makes a folder that only its owner may enter.
        staging.chmod(0o755)
        version = _claim(staging, store, name, encoded=(model_file, files))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for parent in (folder, store.root):
        sync_folder(parent)
    return version


def _claim(staging: Path, store: PackageStore, name: str, encoded: tuple[str, dict[str, bytes]]) -> str:
    """Rename the folder to the next version; never overwrite a version that another machine wrote meanwhile."""
    while True:
        versions = list_versions(store.root, name)
        version = number(int(versions[-1]) + 1 if versions else 1)
        # The manifest contains the version, so each new attempt needs a new manifest and signature.
        manifest = encode_manifest(name, version, *encoded)
        for file, data in ((MANIFEST, manifest), (SIGNATURE, store.signer.sign(manifest))):
            (staging / file).unlink(missing_ok=True)
            write_durable(staging / file, data)
        for part in (path for path in staging.rglob("*") if path.is_dir()):
            sync_folder(part)
        sync_folder(staging)
        try:
            os.rename(staging, model_folder(store.root, name) / version)  # noqa: PTH104 - Path.rename would first need a check
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
        else:
            return version


def _sweep(folder: Path) -> None:
    """Delete temporary folders of killed writers; the lock is held, so no writer is active."""
    for leftover in folder.glob(f"{_LEFTOVER}*"):
        shutil.rmtree(leftover, ignore_errors=True)
