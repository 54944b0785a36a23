"""Signing the packages of a project that have no signature."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from skewless.contract.names import check_known

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class SignReport:
    """The result of signing.

    Args:
        key: the public key, in the format of the setting ``trusted_keys``.
        signed: versions with a new signature, by model.
        refused: reason why a package cannot be loaded, by model and version.
    """

    key: str
    signed: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield the result in sentences."""
        yield f"key: {self.key}"
        for model, versions in self.signed.items():
            yield f"{model}: signed {', '.join(versions) or 'all versions have a signature'}"
        for name, why in self.refused.items():
            yield f"{name}: not signed: {why}"


def sign_packages(project: Workspace, models: Sequence[str] = (), *, dry: bool = False) -> SignReport:
    """Sign the versions that have no signature; altered packages and other signatures are not changed.

    Args:
        models: names; empty: all trained models.
        dry: sign nothing; a missing key is still created.

    Raises:
        RequestError: a model has no trained version.
    """
    from skewless.contract.errors import PackageError
    from skewless.infra.packages.package import open_package
    from skewless.infra.packages.writer import is_signed, sign_package
    from skewless.operations.tracking import trained_models

    store = project.store
    names = trained_models(project)
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
                sign_package(store, model, version, dry=dry)
            except PackageError as error:
                report.refused[f"{model} {version}"] = error.cause()
            else:
                report.signed[model].append(version)
    return report
