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
    """What was signed.

    Args:
        key: the public key, as the setting ``trusted_keys`` takes it.
        signed: by model, the versions that got a signature.
        refused: by model and version, why a package is not loaded, signature or not.
    """

    key: str
    signed: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield it in sentences."""
        yield f"key: {self.key}"
        for model, versions in self.signed.items():
            yield f"{model}: signed {', '.join(versions) or 'nothing: all have a signature'}"
        for name, why in self.refused.items():
            yield f"{name}: left alone: {why}"


def sign_packages(project: Workspace, models: Sequence[str] = (), *, dry: bool = False) -> SignReport:
    """Sign the versions that have no signature; what is altered or has another signature is left alone.

    Args:
        models: names; none: all that were ever trained.
        dry: only say what would be done; the key is made all the same.

    Raises:
        RequestError: no version of such a model was ever trained.
    """
    from skewless.contract.errors import PackageError
    from skewless.infra.packages.package import open_package
    from skewless.infra.packages.writer import is_signed, sign_package
    from skewless.infra.storage.names import list_versions
    from skewless.operations.tracking import trained_models

    store = project.store
    trained = trained_models(project)
    for model in models:
        check_known("model", model, trained)
    found = {model: list_versions(store.root, model) for model in models or trained}
    report = SignReport(key=store.check_signer())
    for model, versions in found.items():
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
