"""Writing a model package: beside its place first, then under its version in one rename."""

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

    A kill at any point leaves either no new version or a whole one; what it leaves beside the versions
    is swept by the next write.

    Args:
        store: the packages of a project; its folder and its signing key are made if they do not exist.
        name: the model's name.
        contents: what to write.

    Raises:
        PackageError: a name or value that cannot be packaged.
        DefinitionError: nobody would load it: the signing key is not among the trusted ones.
        PlaceError: the signing key cannot be read.
        StoreError: the disk refused; no new version.
    """
    folder = model_folder(store.root, name)
    files = contents.files()
    store.check_signer()
    try:
        with hold_lock(folder / ".lock"):
            _sweep(folder)
            version = _place(store, name, contents.model_name, files)
    except OSError as error:
        raise disk_error(folder, error) from error
    return open_package(store, name, version)


def sign_package(store: PackageStore, name: str, version: str, *, dry: bool = False) -> None:
    """Sign a package that has no signature, as those from before packages were signed.

    Args:
        dry: only look whether it could be signed.

    Raises:
        PackageError: there is no such version, it is altered, or it has a signature.
        StoreError: the disk refused.
    """
    store.check_signer()
    folder = version_folder(store.root, name, version)
    held = verify_folder(folder, name, version, replace(store.trust, unsigned=True))
    if not dry:
        with suppress(FileExistsError):
            create_durable(folder / SIGNATURE, store.signer.sign(held.manifest))


def is_signed(store: PackageStore, name: str, version: str) -> bool:
    """Say whether a package has a signature, whosever it is."""
    return (version_folder(store.root, name, version) / SIGNATURE).exists()


def _place(store: PackageStore, name: str, model_file: str, files: dict[str, bytes]) -> str:
    """Write the files into a folder beside the versions and rename it to the next free one."""
    folder = model_folder(store.root, name)
    staging = Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=folder))
    try:
        for path, data in files.items():
            (staging / path).parent.mkdir(exist_ok=True)
            write_durable(staging / path, data)
        staging.chmod(0o755)
        version = _claim(staging, store, name, encoded=(model_file, files))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for place in (folder, store.root):
        sync_folder(place)
    return version


def _claim(staging: Path, store: PackageStore, name: str, encoded: tuple[str, dict[str, bytes]]) -> str:
    """Rename to the next version; one that another machine took meanwhile is not overwritten."""
    while True:
        taken = list_versions(store.root, name)
        version = number(int(taken[-1]) + 1 if taken else 1)
        manifest = encode_manifest(name, version, *encoded)
        for file, data in ((MANIFEST, manifest), (SIGNATURE, store.signer.sign(manifest))):
            (staging / file).unlink(missing_ok=True)
            write_durable(staging / file, data)
        for part in (path for path in staging.rglob("*") if path.is_dir()):
            sync_folder(part)
        sync_folder(staging)
        try:
            os.rename(staging, model_folder(store.root, name) / version)  # noqa: PTH104 - Path.rename says less
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
        else:
            return version


def _sweep(folder: Path) -> None:
    """Remove what killed writers left; the lock is held, so none of them is alive."""
    for leftover in folder.glob(f"{_LEFTOVER}*"):
        shutil.rmtree(leftover, ignore_errors=True)
