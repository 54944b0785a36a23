"""A model package: the contents to write, and the package that is read back after verification."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from skewless.contract.errors import DefinitionError, PackageError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.packages.manifest import read_verified_file, verify_folder
from skewless.infra.packages.signing import SIGNATURE
from skewless.infra.packages.store import PackageStore
from skewless.infra.runtimes.certification import Reference
from skewless.infra.runtimes.port import Vector
from skewless.infra.storage.names import MANIFEST, check_file_name

Json = Mapping[str, Any]
_T = TypeVar("_T")

_EXTRA = "extra/"
_DOCUMENTS = ("plan", "profile", "metrics", "fingerprint", "about")
_OPTIONAL_DOCUMENTS = ("bounds", "curves")  # documents that older packages lack
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
        files = {f"{name}.json": _to_json(name, getattr(self, name)) for name in (*_DOCUMENTS, *_OPTIONAL_DOCUMENTS)}
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


def open_package(store: PackageStore, name: str, version: str) -> Package:
    """Read and verify a package.

    Args:
        store: the packages of a project.
        name: the model's name.
        version: its version, for example ``000001``.

    Raises:
        PackageError: the version does not exist, no trusted key signed it, or a file is missing, unexpected or altered.
    """
    folder = store.packages.version_folder(name, version)
    verified = verify_folder(folder, name, version, store.trust)
    files = verified.files
    documents = {part: json.loads(files[f"{part}.json"]) for part in _DOCUMENTS}
    documents |= {part: json.loads(files.get(f"{part}.json", b"{}")) for part in _OPTIONAL_DOCUMENTS}
    return Package(
        path=folder,
        name=name,
        version=version,
        digest=verified.digest,
        model_file=folder / verified.model_file,
        spec=ModelSpec.from_dict(json.loads(files["spec.json"])),
        reference=Reference(*(_from_npy(files[f"reference_{part}.npy"]) for part in _ARRAYS)),
        extra={path.removeprefix(_EXTRA): data.decode() for path, data in files.items() if path.startswith(_EXTRA)},
        **documents,
    )


def read_spec(store: PackageStore, name: str, version: str) -> ModelSpec:
    """Return the ModelSpec of a version, without reading the other files of its package.

    Raises:
        PackageError: the version does not exist, no trusted key signed it, or its spec cannot be read.
    """
    return _read_document(store, name, version, "spec", ModelSpec.from_dict)


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
        raise PackageError(
            owner,
            "has a plan that does not match its hash",
            value=plan.hash,
            fix="train again with this version of skewless",
        )
    return plan


def _to_json(thing: str, value: Json) -> bytes:
    try:
        return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise PackageError(
            f"package file '{thing}.json'",
            f"is not plain JSON: {error}",
            fix="give dicts, lists, texts and finite numbers",
        ) from error


def _to_npy(values: Vector) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _from_npy(data: bytes) -> Vector:
    # Never pickled objects: loading them would run code from the package.
    values: Vector = np.load(io.BytesIO(data), allow_pickle=False)
    return values
