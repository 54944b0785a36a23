"""A model package: the contents to write, its manifest, and the package that is read back after verification."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from skewless.contract.errors import DefinitionError, PackageError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.models.packages.signing import SIGNATURE, TrustPolicy
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.runtimes.certification import Reference
from skewless.infra.models.runtimes.port import Vector
from skewless.infra.platform.storage.names import MANIFEST, check_file_name, missing_file_error, package_label

Json = Mapping[str, Any]
_T = TypeVar("_T")

_FORMAT = 1  # of the manifest
_MAX_SIGNATURE_BYTES = 4_096
_EXTRA = "extra/"
ALL_DOCUMENTS = ("plan", "profile", "metrics", "fingerprint", "about", "bounds", "curves")
SERVED_DOCUMENTS = ("plan", "metrics", "bounds")  # a server holds many models, and never shows the others
_ARRAYS = ("rows", "margins", "scores")


@dataclass(frozen=True, kw_only=True)
class PackageParts:
    """The parts of a package without its model.

    Args:
        spec: the user's ModelSpec.
        plan: the FeaturePlan as JSON, opaque here.
        reference: rows with expected margins and scores.
        profile: histograms of the training data per feature.
        metrics: the evaluation.
        fingerprint: identity of the training data.
        about: other facts that are needed to train it again (code hash, library versions, times).
        bounds: limits of its features and request fields (``skewless.contract.bounds``).
        curves: curves of the evaluation and the training, and the importance of each feature.
        extra: text files by name, for example the source of the transforms.
    """

    spec: ModelSpec
    plan: Json
    reference: Reference
    profile: Json
    metrics: Json
    fingerprint: Json
    about: Json = field(default_factory=dict)
    bounds: Json = field(default_factory=dict)
    curves: Json = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PackageContents(PackageParts):
    """The contents of a package.

    Args:
        model_name: file name of the model in its library's own text or JSON format.
        model: the model file's bytes.
    """

    model_name: str
    model: bytes

    def files(self) -> dict[str, bytes]:
        """Return every file except the manifest: path in the folder -> bytes.

        Raises:
            PackageError: two files have one name, a name points out of the folder, or a value is not JSON.
        """
        files = {f"{name}.json": _to_json(name, getattr(self, name)) for name in ALL_DOCUMENTS}
        files["spec.json"] = _to_json("spec", self.spec.as_dict())
        files |= {f"reference_{name}.npy": _to_npy(getattr(self.reference, name)) for name in _ARRAYS}
        files |= {_EXTRA + check_file_name(name): text.encode() for name, text in self.extra.items()}
        if check_file_name(self.model_name) in files or self.model_name in {MANIFEST, SIGNATURE}:
            raise PackageError("model file", "has the name of another file", value=self.model_name, fix="rename it")
        return files | {self.model_name: self.model}


@dataclass(frozen=True, kw_only=True)
class Package(PackageParts):
    """A verified package; its folder is immutable.

    Args:
        path: the folder.
        name: the model's name.
        version: zero-padded number, increasing per model.
        digest: SHA-256 of the manifest, which identifies all files.
        model_file: the model in its library's own format.
    """

    path: Path
    name: str
    version: str
    digest: str
    model_file: Path


def open_package(store: PackageStore, name: str, version: str, documents: Collection[str] = ALL_DOCUMENTS) -> Package:
    """Read and verify a package.

    Args:
        store: the packages of a project.
        name: the model's name.
        version: its version, for example ``000001``.
        documents: names of the documents that are needed; the others are verified too, and stay empty.

    Raises:
        PackageError: the version does not exist, no trusted key signed it, or a file is missing, unexpected or altered.
    """
    folder = store.packages.version_folder(name, version)
    verified = verify_folder(folder, name, version, store.trust)
    files = verified.files
    texts = {part: files[f"{part}.json"] for part in ALL_DOCUMENTS}
    return Package(
        path=folder,
        name=name,
        version=version,
        digest=verified.digest,
        model_file=folder / verified.model_file,
        spec=ModelSpec.from_dict(json.loads(files["spec.json"])),
        reference=Reference(*(_from_npy(files[f"reference_{part}.npy"]) for part in _ARRAYS)),
        extra={path.removeprefix(_EXTRA): data.decode() for path, data in files.items() if path.startswith(_EXTRA)},
        **{part: json.loads(text) if part in documents else {} for part, text in texts.items()},
    )


def read_spec(store: PackageStore, name: str, version: str) -> ModelSpec:
    """Return the ModelSpec of a version, without reading the other files of its package.

    Raises:
        PackageError: the version does not exist, no trusted key signed it, or its spec cannot be read.
    """
    return _read_document(store, name, version, "spec", ModelSpec.from_dict)


def read_document(store: PackageStore, name: str, version: str, part: str) -> Json:
    """Return one document of a version, such as ``metrics``, without reading the other files of its package.

    Raises:
        PackageError: the version does not exist, no trusted key signed it, or the document cannot be read.
    """
    return _read_document(store, name, version, part, dict)


def pin_plan(plan: FeaturePlan, vocabularies: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a package's plan: the pinned plan, its hash and the vocabularies."""
    return {"features": plan.as_dict(), "hash": plan.hash, "vocabularies": dict(vocabularies)}


def pinned_plan(package: Package) -> FeaturePlan:
    """Return the plan that a package pins.

    Raises:
        PackageError: the plan does not match its hash.
    """
    return _decode_plan(package.plan, f"package {package.name} {package.version}")


def read_pinned_plan(store: PackageStore, name: str, version: str) -> FeaturePlan:
    """Return the plan that a version pins, without reading the other files of its package.

    Raises:
        PackageError: the version does not exist, no trusted key signed it, or the plan is altered.
    """
    return _read_document(store, name, version, "plan", partial(_decode_plan, owner=f"package {name} {version}"))


def _read_document(store: PackageStore, name: str, version: str, part: str, decode: Callable[[Any], _T]) -> _T:
    folder = store.packages.version_folder(name, version)
    try:
        return decode(json.loads(read_verified_file(folder, name, version, f"{part}.json", store.trust)))
    except (OSError, ValueError, KeyError, TypeError, DefinitionError) as error:
        problem, fix = f"has a {part} that cannot be read", f"restore the file {part}.json"
        raise PackageError(f"package {name} {version}", problem, fix=fix) from error


def _decode_plan(pinned: Mapping[str, Any], owner: str) -> FeaturePlan:
    plan = FeaturePlan.from_dict(pinned["features"])
    # The manifest already protects the bytes; this finds a release that hashes plans otherwise, so that no key matches.
    if plan.hash != pinned["hash"]:
        fix = "train again with this version of skewless"
        raise PackageError(owner, "has a plan that does not match its hash", value=plan.hash, fix=fix)
    return plan


def _to_json(thing: str, value: Json) -> bytes:
    try:
        return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        fix = "give dicts, lists, texts and finite numbers"
        raise PackageError(f"package file '{thing}.json'", f"is not plain JSON: {error}", fix=fix) from error


def _to_npy(values: Vector) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _from_npy(data: bytes) -> Vector:
    # Never pickled objects: loading them would run code from the package.
    values: Vector = np.load(io.BytesIO(data), allow_pickle=False)
    return values


@dataclass(frozen=True, kw_only=True)
class VerifiedPackage:
    """The files of a package. Each was read once, and its bytes match the signed manifest.

    Args:
        manifest: bytes of the manifest.
        files: path in the folder -> bytes.
        hashes: path in the folder -> SHA-256.
    """

    manifest: bytes
    model_file: str
    files: Mapping[str, bytes]
    hashes: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the manifest, which identifies all files."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def content(self) -> str:
        """Return a digest of the files alone: a copy has it, too, under the version of another project."""
        return hashlib.sha256(_encode_hashes("", "", self.model_file, self.hashes)).hexdigest()


def encode_manifest(name: str, version: str, model_file: str, files: Mapping[str, bytes]) -> bytes:
    """Return the manifest's bytes; they depend only on the arguments, so verification can encode them again."""
    return _encode_hashes(name, version, model_file, _hash_files(files))


def _hash_files(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def _encode_hashes(name: str, version: str, model_file: str, hashes: Mapping[str, str]) -> bytes:
    content = {
        "format": _FORMAT,
        "model": name,
        "version": version,
        "model_file": model_file,
        "files": dict(hashes),
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def verify_folder(folder: Path, name: str, version: str, trust: TrustPolicy) -> VerifiedPackage:
    """Read every file of a package once and return the verified bytes.

    Raises:
        PackageError: no trusted key signed it, or a file is missing, unexpected, or has another hash.
    """
    thing = package_label(name, version)
    manifest, content = _read_manifest(folder, thing, trust)
    expected, model_file = content["files"], content["model_file"]
    paths = _list_paths(folder)
    for path in sorted(expected.keys() - paths):
        raise missing_file_error(thing, path)
    # Nothing has signed such a file, but a library might read it.
    for path in sorted(paths - expected.keys() - {MANIFEST, SIGNATURE}):
        raise PackageError(thing, "has an unexpected file", value=path, fix="move it out of the folder")
    # Read once: the same bytes are compared and used.
    files = {path: _read_file(folder / path, thing, path) for path in expected}
    hashes = _hash_files(files)
    for path, found in hashes.items():
        if found != expected[path]:
            raise _altered_error(thing, path)
    if model_file not in files or _encode_hashes(name, version, model_file, hashes) != manifest:
        raise _altered_error(thing, MANIFEST)
    return VerifiedPackage(manifest=manifest, model_file=model_file, files=files, hashes=hashes)


def read_verified_file(folder: Path, name: str, version: str, path: str, trust: TrustPolicy) -> bytes:
    """Return one verified file of a package, without reading its other files.

    Raises:
        PackageError: no trusted key signed the package, it is another package, or the file is altered.
    """
    thing = package_label(name, version)
    _, content = _read_manifest(folder, thing, trust)
    data = _read_file(folder / path, thing, path)
    # A signed manifest of another version may have been copied here.
    if (content.get("model"), content.get("version")) != (name, version):
        raise _altered_error(thing, MANIFEST)
    if hashlib.sha256(data).hexdigest() != content["files"].get(path):
        raise _altered_error(thing, path)
    return data


def _read_manifest(folder: Path, thing: str, trust: TrustPolicy) -> tuple[bytes, dict[str, Any]]:
    """Check the signature; return the manifest's bytes and its content: ``files`` with their hashes, ``model_file``."""
    data = _read_file(folder / MANIFEST, thing, MANIFEST)
    # Before anything of the manifest is parsed.
    trust.check(thing, data, _read_signature(folder / SIGNATURE))
    try:
        content = json.loads(data)
        is_valid = isinstance(content["files"], dict) and isinstance(content["model_file"], str)
    except (ValueError, KeyError, TypeError):
        is_valid = False
    if not is_valid:
        raise _altered_error(thing, MANIFEST)
    return data, content


def _read_signature(path: Path) -> bytes | None:
    """Return the bytes of a signature file, up to a limit; None: the file is missing."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_SIGNATURE_BYTES)
    except OSError:
        return None


def _list_paths(folder: Path) -> set[str]:
    """Return the paths of all files in a folder and its subfolders; a link counts as a file."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _read_file(path: Path, thing: str, name: str) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise missing_file_error(thing, name)
    return path.read_bytes()


def _altered_error(thing: str, path: str) -> PackageError:
    fix = "restore it, use another version, or train again"
    return PackageError(thing, "has an altered file", value=path, fix=fix)
