"""Signing the packages of a project that have no signature, and removing trusted keys."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from skewless.contract.errors import DefinitionError, PackageError, RequestError
from skewless.contract.names import check_known
from skewless.contract.plain_record import PlainRecord
from skewless.infra.models.packages.package import open_package
from skewless.infra.models.packages.signing import SIGNATURE, read_signer, record_removal, trusted_documents
from skewless.infra.models.packages.writer import is_signed, sign_package
from skewless.operations.audited import audited
from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class SignReport(PlainRecord):
    """The result of signing.

    Args:
        key: the public key, in the format of the setting ``trusted_keys``.
        signed: versions with a new signature, by model.
        refused: reason why a package cannot be loaded, by model and version.
        removed: the key that is no longer trusted; None: all are.
    """

    key: str | None
    signed: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    removed: str | None = None

    def lines(self) -> Iterator[str]:
        """Yield the result in sentences."""
        if self.removed is not None:
            yield f"removed: {self.removed}"
            for name, why in self.refused.items():
                yield f"{name}: cannot be loaded any more: {why}"
            return
        yield f"key: {self.key}"
        for model, versions in self.signed.items():
            yield f"{model}: signed {', '.join(versions) or 'all versions have a signature'}"
        for name, why in self.refused.items():
            yield f"{name}: not signed: {why}"


@audited()
def sign(
    project: Workspace, models: Sequence[str] = (), *, remove_key: str | None = None, dry_run: bool = False
) -> SignReport:
    """Sign packages that have no signature; or, with ``remove_key``, trust a public key no longer.

    Raises:
        RequestError: both are asked for.
    """
    if remove_key is None:
        return sign_packages(project, models, dry_run=dry_run)
    if models:
        raise RequestError("option --remove-key", "is for all models", value=models[0], fix="name no model")
    return remove_trusted_key(project, remove_key, dry_run=dry_run)


def sign_packages(project: Workspace, models: Sequence[str] = (), *, dry_run: bool = False) -> SignReport:
    """Sign the versions that have no signature; altered packages and other signatures are not changed.

    Args:
        models: names; empty: all trained models.
        dry_run: sign nothing; a missing key is still created.

    Raises:
        RequestError: a model has no trained version.
    """
    store = project.store
    names = store.packages.list_models()
    for model in models:
        check_known("model", model, names)
    versions_by_model = {model: store.packages.list_versions(model) for model in models or names}
    report = SignReport(key=store.check_signer())
    for model, versions in versions_by_model.items():
        report.signed[model] = []
        for version in versions:
            try:
                if is_signed(store, model, version):
                    open_package(store, model, version)
                    continue
                sign_package(store, model, version, dry=dry_run)
            except PackageError as error:
                report.refused[f"{model} {version}"] = error.cause()
            else:
                report.signed[model].append(version)
    return report


def remove_trusted_key(project: Workspace, key: str, *, dry_run: bool = False) -> SignReport:
    """Trust a key no longer; packages that it has signed cannot be loaded any more. The removal is recorded.

    Args:
        key: a trusted public key.
        dry_run: remove nothing.

    Raises:
        DefinitionError: the setting ``trusted_keys`` replaces the keys of the project.
        RequestError: the key is not trusted.
    """
    if project.settings.trusted_keys:
        fix = "remove the key from the setting, and start the servers again"
        raise DefinitionError("setting 'trusted_keys'", "replaces the trusted keys of the project", fix=fix)
    check_known("trusted key", key, trusted_documents(project.state).names())
    packages, refused = project.packages, dict[str, str]()
    for model in packages.list_models():
        for version in packages.list_versions(model):
            signature = packages.version_folder(model, version) / SIGNATURE
            if signature.exists() and read_signer(signature.read_bytes()) == key:
                refused[f"{model} {version}"] = "this key has signed it"
    if not dry_run:
        at_us, host = project.clock.now_us(), socket.gethostname()
        record_removal(project.state, key, {"at_us": at_us, "host": host, "refused": sorted(refused)})
    return SignReport(key=None, refused=refused, removed=key)
