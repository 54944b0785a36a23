"""The project of a server in a platform's container: the mounted bundle, and the settings of the platform."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from skewless.contract.errors import PlaceError
from skewless.contract.settings import BUNDLE_FILE, load_settings
from skewless.infra.platform.storage.durable import make_folder, translate_disk_errors
from skewless.infra.platform.storage.project_state import open_storage
from skewless.operations.state.bundle import ARCHIVE, MOST_BYTES, MOST_FILES, unpack
from skewless_platforms.contracts import PlatformContract, PlatformName, read_contract

_LOCAL_LOG_MB = 32.0  # state folders are often in memory
_CLOUDS = ("gs://", "s3://", "az://")
_COPIES_BYTES = 10**9


def locate_project(
    platform: PlatformName, given: Path | None, environment: Mapping[str, str]
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the project in a container, and the settings that the platform determines.

    A bundle in an archive or a bucket is copied into the folder of temporary files first.

    Args:
        given: folder of the project, instead of the platform's.

    Raises:
        DefinitionError: a variable of the platform, or a setting, is missing or invalid.
        PlaceError: the platform has mounted no bundle.
        StoreError: the bucket or the disk failed.
    """
    contract = read_contract(platform, environment)
    folder = given or _fetch(contract)
    own = load_settings(folder)
    values = {
        "host": "0.0.0.0",  # noqa: S104 - platforms require it
        "port": contract.port,
        "deadline_ms": contract.deadline_ms,
    }
    settings = {name: value for name, value in values.items() if value is not None and name not in own.model_fields_set}
    if "state" not in own.model_fields_set:
        settings["state"] = str(_work_folder() / "state")
    if own.database_url is None and (folder / BUNDLE_FILE).exists() and "local_log_mb" not in own.model_fields_set:
        settings["local_log_mb"] = _LOCAL_LOG_MB
    return folder, settings


def _work_folder() -> Path:
    """Return a folder that only this user can write to; a container has one server."""
    folder = Path(tempfile.gettempdir()) / f"skewless-{os.getuid()}"
    with translate_disk_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    if status.st_uid != os.getuid() or not folder.is_dir() or folder.is_symlink() or status.st_mode & 0o022:
        raise PlaceError(f"folder {folder}", "belongs to another user", fix="set SKEWLESS_STATE and TMPDIR")
    return folder


def _fetch(contract: PlatformContract) -> Path:
    model, target = contract.model, _work_folder() / "bundle"
    if model is None:
        fix = "give the platform the output of `skewless bundle` as the model, or name a folder with --repo"
        raise PlaceError("the platform", "names no model", fix=fix)
    if model.startswith(_CLOUDS):
        _download(model, target)
        return _find(target, target.with_name("unpacked"))
    return _find(Path(model), target)


def _find(folder: Path, unpacked: Path) -> Path:
    """Return the folder of a bundle: the folder, a folder in it, or what an archive in it contains.

    Only a bundle: a project has settings of trust, places and access, and who may write the model may write them.
    """
    folders = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    for place in folders:
        if (place / BUNDLE_FILE).is_file():
            return place
    archives = sorted(path for place in folders for path in place.glob(f"*{ARCHIVE}"))
    if len(archives) == 1:
        with translate_disk_errors(unpacked):
            _empty(unpacked)
            unpack(archives[0], unpacked)
        if (unpacked / BUNDLE_FILE).is_file():
            return unpacked
    fix = "give the platform the output of `skewless bundle` as the model"
    raise PlaceError(f"folder {folder}", "has no bundle", value=folder.is_dir() or "no folder", fix=fix)


def _download(url: str, target: Path) -> None:
    """Copy the objects below an address into a folder."""
    with translate_disk_errors(target), tempfile.TemporaryDirectory() as folder:
        _empty(target)
        storage, size = open_storage(Path(folder), url, _COPIES_BYTES), 0
        for n, item in enumerate(storage.list_objects(""), start=1):
            name, size = PurePosixPath(item.name), size + item.size
            if n > MOST_FILES or size > MOST_BYTES:
                problem = f"has more than {MOST_FILES:,} files, or than {MOST_BYTES:,} bytes"
                raise PlaceError(f"address {url}", problem, fix="name the folder of one bundle")
            if ".." in name.parts or name.is_absolute():
                raise PlaceError(f"object {item.name!r}", "has a name that leaves its folder", fix="bundle it again")
            path = target / name
            make_folder(path.parent)
            shutil.copyfile(storage.local_path(storage.describe(item.name)), path)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
