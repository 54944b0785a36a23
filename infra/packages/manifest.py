"""The manifest of a model package: its name, version and the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from skewless.errors import PackageError

MANIFEST = "manifest.json"
_FORMAT = 1


def encode_manifest(name: str, version: str, model_file: str, files: Mapping[str, bytes]) -> bytes:
    """Return the manifest's bytes: a pure function of what it describes, so any change of it shows."""
    content = {
        "format": _FORMAT,
        "model": name,
        "version": version,
        "model_file": model_file,
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())},
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def verify_folder(folder: Path, name: str, version: str) -> tuple[str, dict[str, bytes]]:
    """Read every file of a package once and return the model file's name and all verified bytes.

    Raises:
        PackageError: names the file that is missing, unexpected, or has another hash.
    """
    thing = f"package {name!r} version {version!r}"
    manifest, listed, model_file = _read_manifest(folder, thing)
    present = _paths(folder)
    for path in sorted(listed.keys() - present):
        raise PackageError(thing, "a file is missing", value=path, fix="restore the folder or use another version")
    for path in sorted(present - listed.keys() - {MANIFEST}):
        raise PackageError(thing, "holds a file that nobody packaged", value=path, fix="move it out of the folder")
    files = {path: _read(folder / path, thing, path) for path in listed}
    for path, data in files.items():
        if hashlib.sha256(data).hexdigest() != listed[path]:
            raise _altered(thing, path)
    if model_file not in files or encode_manifest(name, version, model_file, files) != manifest:
        raise _altered(thing, MANIFEST)
    return model_file, files


def manifest_digest(folder: Path) -> str:
    """Return the identity of a package, so of everything in it, without reading more than its manifest.

    Raises:
        PackageError: there is no manifest.
    """
    return hashlib.sha256(_read(folder / MANIFEST, f"package folder {folder.name!r}", MANIFEST)).hexdigest()


def _read_manifest(folder: Path, thing: str) -> tuple[bytes, dict[str, str], str]:
    """Return the manifest's bytes, its hash per file, and the name of the model file."""
    data = _read(folder / MANIFEST, thing, MANIFEST)
    try:
        content = json.loads(data)
        files, model_file = content["files"], content["model_file"]
    except (ValueError, KeyError, TypeError) as error:
        raise _altered(thing, MANIFEST) from error
    if not isinstance(files, dict) or not isinstance(model_file, str):
        raise _altered(thing, MANIFEST)
    return data, files, model_file


def _paths(folder: Path) -> set[str]:
    """Return everything below a folder but plain folders; a link counts as a file."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _read(path: Path, thing: str, name: str) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise PackageError(thing, "a file is missing", value=name, fix="restore the folder or use another version")
    return path.read_bytes()


def _altered(thing: str, path: str) -> PackageError:
    return PackageError(
        thing,
        "a file is not the one that was packaged",
        value=path,
        fix="restore it, use another version, or train again",
    )
