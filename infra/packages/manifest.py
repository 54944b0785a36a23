"""The manifest of a model package: its name, version and the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.errors import PackageError
from skewless.infra.packages.signing import SIGNATURE, TrustPolicy

MANIFEST = "manifest.json"
_FORMAT = 1
_MOST_SIGNATURE_BYTES = 4_096


@dataclass(frozen=True, kw_only=True)
class VerifiedPackage:
    """What a package holds, read once, each byte as it was signed.

    Args:
        manifest: bytes of the manifest.
        files: path in the folder -> bytes.
    """

    manifest: bytes
    model_file: str
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """Return the sha256 of the manifest, so of everything."""
        return hashlib.sha256(self.manifest).hexdigest()


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


def verify_folder(folder: Path, name: str, version: str, trust: TrustPolicy) -> VerifiedPackage:
    """Read every file of a package once and return all verified bytes.

    Raises:
        PackageError: it is not signed by a key that is trusted, or a file is missing, unexpected, or has another hash.
    """
    thing = _thing(name, version)
    manifest, listed, model_file = _read_manifest(folder, thing, trust)
    present = _paths(folder)
    for path in sorted(listed.keys() - present):
        raise PackageError(thing, "a file is missing", value=path, fix="restore the folder or use another version")
    for path in sorted(present - listed.keys() - {MANIFEST, SIGNATURE}):
        raise PackageError(thing, "holds a file that nobody packaged", value=path, fix="move it out of the folder")
    files = {path: _read(folder / path, thing, path) for path in listed}
    for path, data in files.items():
        if hashlib.sha256(data).hexdigest() != listed[path]:
            raise _altered(thing, path)
    if model_file not in files or encode_manifest(name, version, model_file, files) != manifest:
        raise _altered(thing, MANIFEST)
    return VerifiedPackage(manifest=manifest, model_file=model_file, files=files)


def verified_file(folder: Path, name: str, version: str, path: str, trust: TrustPolicy) -> bytes:
    """Return one file of a package, whatever became of its other files.

    Raises:
        PackageError: the package is not signed by a key that is trusted, or is another one, or the file is altered.
    """
    thing = _thing(name, version)
    manifest, listed, _ = _read_manifest(folder, thing, trust)
    content, data = json.loads(manifest), _read(folder / path, thing, path)
    if (content.get("model"), content.get("version")) != (name, version):
        raise _altered(thing, MANIFEST)
    if hashlib.sha256(data).hexdigest() != listed.get(path):
        raise _altered(thing, path)
    return data


def manifest_digest(folder: Path) -> str:
    """Return the identity of a package, so of everything in it, without reading more than its manifest.

    Raises:
        PackageError: there is no manifest.
    """
    return hashlib.sha256(_read(folder / MANIFEST, f"package folder {folder.name!r}", MANIFEST)).hexdigest()


def _thing(name: str, version: str) -> str:
    return f"package {name!r} version {version!r}"


def _read_manifest(folder: Path, thing: str, trust: TrustPolicy) -> tuple[bytes, dict[str, str], str]:
    """Return the manifest's bytes, once its signature holds, its hash per file, and the name of the model file."""
    data = _read(folder / MANIFEST, thing, MANIFEST)
    trust.check(thing, data, _read_signature(folder / SIGNATURE))
    try:
        content = json.loads(data)
        files, model_file = content["files"], content["model_file"]
    except (ValueError, KeyError, TypeError) as error:
        raise _altered(thing, MANIFEST) from error
    if not isinstance(files, dict) or not isinstance(model_file, str):
        raise _altered(thing, MANIFEST)
    return data, files, model_file


def _read_signature(path: Path) -> bytes | None:
    """Return the bytes of a signature's file, no more than any has; None: there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_SIGNATURE_BYTES)
    except OSError:
        return None


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
