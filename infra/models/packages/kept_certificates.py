"""Certificates of earlier loads: a runtime is certified once for a package, a library and a machine (SEMANTICS 6.3)."""

from __future__ import annotations

import json
from contextlib import suppress

from skewless.contract.errors import PackageError, SkewlessError
from skewless.infra.models.packages.package import Package
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.runtimes.certification import Certificate, certify
from skewless.infra.models.runtimes.lightgbm_capi import LightGBMRuntime
from skewless.infra.models.runtimes.port import Runtime
from skewless.infra.models.runtimes.xgboost_capi import XGBoostRuntime
from skewless.infra.platform.storage.durable import replace_durable

FOLDER = "certificates"
_WORTH_BYTES = 300_000  # a smaller model is certified in less time than the library is hashed


def certify_once(store: PackageStore, package: Package, runtime: Runtime) -> Certificate:
    """Return the certificate of a package's runtime: that of an earlier load, or a new one.

    The state folder keeps the signature of a certificate whose margins are all bit-equal. It counts only if a trusted
    key has signed it for the bytes of this package and of this library, for this processor and this machine. Of a small
    model none is kept, nor by a process that cannot read the signing key.

    Args:
        runtime: the library's own runtime, freshly loaded.

    Raises:
        PackageError: as ``certify``.
    """
    text, path = _describe(package, runtime), store.state / FOLDER / f"{package.name}.{package.version}.json"
    if text is not None and path.is_file():
        with suppress(PackageError, OSError):
            store.trust.check(str(path), text, path.read_bytes(), "runtime certificate")
            return Certificate(
                runtime_id=runtime.runtime_id, rows=len(package.reference.rows), bit_equal=True, largest_difference=0.0
            )
    certificate = certify(runtime, package.reference, tolerance=package.spec.tolerance)
    if text is not None and certificate.bit_equal and store.signer.path.is_file():
        with suppress(SkewlessError):  # the next load certifies again
            replace_durable(path, store.signer.sign(text, "runtime certificate"))
    return certificate


def _describe(package: Package, runtime: Runtime) -> bytes | None:
    """Return the signed text of a certificate; None: not all that its result depends on is known."""
    is_small = package.model_file.stat().st_size < _WORTH_BYTES
    if is_small or not isinstance(runtime, LightGBMRuntime | XGBoostRuntime) or runtime.library.identity is None:
        return None
    parts = {"package": package.digest, "runtime": runtime.runtime_id, "library": runtime.library.identity}
    return json.dumps(parts, sort_keys=True).encode()
