"""Writes a model package: a temporary folder, then the objects in the storage, then one step gives them a version."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from skewless.contract.errors import PackageError
from skewless.infra.models.packages.package import (
    Package,
    PackageContents,
    VerifiedPackage,
    encode_manifest,
    open_package,
    verify_folder,
)
from skewless.infra.models.packages.signing import SIGNATURE
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.durable import sync_folder, translate_disk_errors, write_durable
from skewless.infra.platform.storage.names import MANIFEST


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
        StoreError: the disk, the storage or the database refused the write; nothing was added.
    """
    return _write(store, name, contents.model_name, contents.files())


def copy_package(store: PackageStore, name: str, source: VerifiedPackage) -> Package:
    """Write the files of a verified package of another project as the next version of a model; return it.

    Raises: as ``write_package``.
    """
    return _write(store, name, source.model_file, dict(source.files))


def find_copy(store: PackageStore, name: str, source: VerifiedPackage) -> str | None:
    """Return the latest version of a model with the files of another package; None: there is none."""
    for version in reversed(store.packages.list_versions(name)):
        folder = store.packages.version_folder(name, version)
        with suppress(PackageError):  # an altered package is not a copy
            if verify_folder(folder, name, version, store.trust).content == source.content:
                return version
    return None


def _write(store: PackageStore, name: str, model_file: str, files: dict[str, bytes]) -> Package:
    folder = store.packages.model_folder(name)
    # Before anything is written: nobody could load a package with an untrusted signature.
    store.check_signer()
    with translate_disk_errors(folder):
        with store.packages.stage(name, "new") as staging:
            for path, data in files.items():
                (staging / path).parent.mkdir(exist_ok=True)
                write_durable(staging / path, data)
            version = _claim(staging, store, name, encoded=(model_file, files))
        sync_folder(store.packages.root)
    return open_package(store, name, version)


def sign_package(store: PackageStore, name: str, version: str, *, dry: bool = False) -> None:
    """Sign a package without a signature, for example one whose signer is no longer trusted.

    Args:
        dry: only check whether it can be signed.

    Raises:
        PackageError: the version does not exist, it is altered, or it has an untrusted signature.
        StoreError: the disk refused the write.
    """
    store.check_signer()
    folder = store.packages.version_folder(name, version)
    package = verify_folder(folder, name, version, replace(store.trust, unsigned=True))
    if not dry:
        # Staged outside of the package, which a kill would leave with a file that nothing has signed.
        with translate_disk_errors(folder), store.packages.stage(name, "sign") as staging:
            write_durable(staging / SIGNATURE, store.signer.sign(package.manifest))
            if not (folder / SIGNATURE).exists():
                (staging / SIGNATURE).replace(folder / SIGNATURE)
                sync_folder(folder)
        store.packages.register(name, version, store.packages.upload(name, folder))


def is_signed(store: PackageStore, name: str, version: str) -> bool:
    """Return whether a package has a signature, trusted or not, here and for other machines."""
    return store.packages.has_file(name, version, SIGNATURE)


def _claim(staging: Path, store: PackageStore, name: str, encoded: tuple[str, dict[str, bytes]]) -> str:
    """Give the folder the next version; never overwrite a version that another machine wrote meanwhile."""
    packages = store.packages
    stored = packages.upload(name, staging)
    while True:
        version = packages.next_version(name)
        # The manifest contains the version, so each new attempt needs a new manifest and signature.
        manifest = encode_manifest(name, version, *encoded)
        proof = {MANIFEST: manifest, SIGNATURE: store.signer.sign(manifest)}
        for file, data in proof.items():
            (staging / file).unlink(missing_ok=True)
            write_durable(staging / file, data)
        if packages.add_version(name, version, staging, {**stored, **packages.upload(name, staging, proof)}):
            return version
