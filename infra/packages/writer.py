"""Writing a model package: beside its place first, then under its version in one rename."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from infra.durable import exclusive, refused, sync_folder, write_durable
from infra.packages.manifest import MANIFEST, encode_manifest
from infra.packages.names import list_versions, model_folder, number
from infra.packages.package import Package, PackageContents, open_package

_LEFTOVER = ".new-"


def write_package(root: Path, name: str, contents: PackageContents) -> Package:
    """Write the next version of a model and return it, read back and verified.

    A kill at any point leaves either no new version or a whole one; what it leaves beside the versions
    is swept by the next write.

    Args:
        root: folder of all models' packages; made if it does not exist.
        name: the model's name.
        contents: what to write.

    Raises:
        PackageError: a name or value that cannot be packaged.
        StoreError: the disk refused; no new version.
    """
    folder = model_folder(root, name)
    files = contents.files()
    try:
        with exclusive(folder / ".lock"):
            _sweep(folder)
            version = _place(root, name, contents.model_name, files)
    except OSError as error:
        raise refused(folder, error) from error
    return open_package(root, name, version)


def _place(root: Path, name: str, model_file: str, files: dict[str, bytes]) -> str:
    """Write the files into a folder beside the versions and rename it to the next free one."""
    folder = model_folder(root, name)
    staging = Path(tempfile.mkdtemp(prefix=_LEFTOVER, dir=folder))
    try:
        for path, data in files.items():
            (staging / path).parent.mkdir(exist_ok=True)
            write_durable(staging / path, data)
        staging.chmod(0o755)
        version = _claim(staging, root, name, encoded=(model_file, files))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for place in (folder, root):
        sync_folder(place)
    return version


def _claim(staging: Path, root: Path, name: str, encoded: tuple[str, dict[str, bytes]]) -> str:
    """Rename to the next version; one that another machine took meanwhile is not overwritten."""
    while True:
        taken = list_versions(root, name)
        version = number(int(taken[-1]) + 1 if taken else 1)
        (staging / MANIFEST).unlink(missing_ok=True)
        write_durable(staging / MANIFEST, encode_manifest(name, version, *encoded))
        for part in (path for path in staging.rglob("*") if path.is_dir()):
            sync_folder(part)
        sync_folder(staging)
        try:
            os.rename(staging, model_folder(root, name) / version)  # noqa: PTH104 - Path.rename says less
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
        else:
            return version


def _sweep(folder: Path) -> None:
    """Remove what killed writers left; the lock is held, so none of them is alive."""
    for leftover in folder.glob(f"{_LEFTOVER}*"):
        shutil.rmtree(leftover, ignore_errors=True)
