"""The manifest of a model package: model, version and the SHA-256 of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.errors import PackageError
from skewless.infra.packages.signing import SIGNATURE, TrustPolicy
from skewless.infra.storage.names import MANIFEST

_FORMAT = 1
_MAX_SIGNATURE_BYTES = 4_096


@dataclass(frozen=True, kw_only=True)
class VerifiedPackage:
    """The files of a package. Each was read once, and its bytes match the signed manifest.

    Args:
        manifest: bytes of the manifest.
        files: path in the folder -> bytes.
    """

    manifest: bytes
    model_file: str
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the manifest, which identifies all files."""
        return hashlib.sha256(self.manifest).hexdigest()


def encode_manifest(name: str, version: str, model_file: str, files: Mapping[str, bytes]) -> bytes:
    """Return the manifest's bytes; they depend only on the arguments, so verification can encode them again."""
    content = {
        "format": _FORMAT,
        "model": name,
        "version": version,
        "model_file": model_file,
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())},
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def verify_folder(folder: Path, name: str, version: str, trust: TrustPolicy) -> VerifiedPackage:
    """Read every file of a package once and return the verified bytes.

    Raises:
        PackageError: no trusted key signed it, or a file is missing, unexpected, or has another hash.
    """
    thing = _package_label(name, version)
    manifest, hashes, model_file = _read_manifest(folder, thing, trust)
    paths = _paths(folder)
    for path in sorted(hashes.keys() - paths):
        raise PackageError(thing, "lacks a file", value=path, fix="restore the folder or use another version")
    # Nothing has signed such a file, but a library might read it.
    for path in sorted(paths - hashes.keys() - {MANIFEST, SIGNATURE}):
        raise PackageError(thing, "has an unexpected file", value=path, fix="move it out of the folder")
    # Read once: the same bytes are compared and used.
    files = {path: _read(folder / path, thing, path) for path in hashes}
    for path, data in files.items():
        if hashlib.sha256(data).hexdigest() != hashes[path]:
            raise _altered_error(thing, path)
    if model_file not in files or encode_manifest(name, version, model_file, files) != manifest:
        raise _altered_error(thing, MANIFEST)
    return VerifiedPackage(manifest=manifest, model_file=model_file, files=files)


def read_verified_file(folder: Path, name: str, version: str, path: str, trust: TrustPolicy) -> bytes:
    """Return one verified file of a package, without reading its other files.

    Raises:
        PackageError: no trusted key signed the package, it is another package, or the file is altered.
    """
    thing = _package_label(name, version)
    manifest, hashes, _ = _read_manifest(folder, thing, trust)
    content, data = json.loads(manifest), _read(folder / path, thing, path)
    # A signed manifest of another version may have been copied here.
    if (content.get("model"), content.get("version")) != (name, version):
        raise _altered_error(thing, MANIFEST)
    if hashlib.sha256(data).hexdigest() != hashes.get(path):
        raise _altered_error(thing, path)
    return data


def _package_label(name: str, version: str) -> str:
    return f"package {name!r} version {version!r}"


def _read_manifest(folder: Path, thing: str, trust: TrustPolicy) -> tuple[bytes, dict[str, str], str]:
    """Check the signature; return the manifest's bytes, its hash per file, and the name of the model file."""
    data = _read(folder / MANIFEST, thing, MANIFEST)
    # Before anything of the manifest is parsed.
    trust.check(thing, data, _read_signature(folder / SIGNATURE))
    try:
        content = json.loads(data)
        files, model_file = content["files"], content["model_file"]
    except (ValueError, KeyError, TypeError) as error:
        raise _altered_error(thing, MANIFEST) from error
    if not isinstance(files, dict) or not isinstance(model_file, str):
        raise _altered_error(thing, MANIFEST)
    return data, files, model_file


def _read_signature(path: Path) -> bytes | None:
    """Return the bytes of a signature file, up to a limit; None: the file is missing."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_SIGNATURE_BYTES)
    except OSError:
        return None


def _paths(folder: Path) -> set[str]:
    """Return the paths of all files in a folder and its subfolders; a link counts as a file."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _read(path: Path, thing: str, name: str) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise PackageError(thing, "lacks a file", value=name, fix="restore the folder or use another version")
    return path.read_bytes()


def _altered_error(thing: str, path: str) -> PackageError:
    return PackageError(
        thing,
        "has an altered file",
        value=path,
        fix="restore it, use another version, or train again",
    )
