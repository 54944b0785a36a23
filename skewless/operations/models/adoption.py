"""From one environment to the next: adopt the version of a bundle, and approve versions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.errors import ConflictError, PackageError, RequestError
from skewless.contract.names import check_known
from skewless.contract.plain_record import PlainRecord
from skewless.infra.models.packages.approvals import Approval, PackageOrigin
from skewless.infra.models.packages.package import VerifiedPackage, verify_folder
from skewless.infra.models.packages.writer import copy_package, find_copy
from skewless.infra.platform.storage.durable import translate_disk_errors
from skewless.operations.audited import audited
from skewless.operations.models.versions import latest_version
from skewless.operations.state.bundle import digest_of, package_folder, read_bundle, unpack
from skewless.workspace import Workspace

_MOST_TEXT = 1_000


@dataclass(frozen=True, kw_only=True)
class Adoption(PlainRecord):
    """A version that was adopted, or would be.

    Args:
        version: in this project; None in a dry run if it is new.
        content: digest of its files, which is the same in every project.
        is_new: whether the project did not have it before.
        origin: where it comes from.
    """

    model: str
    version: str | None
    content: str
    is_new: bool
    origin: PackageOrigin


@audited()
def adopt(project: Workspace, bundle: Path, model: str, *, digest: str, dry_run: bool = False) -> Adoption:
    """Copy a model's version from a bundle of another environment; it gets the next version here, and no traffic.

    A second call finds the version that has the same files.

    Args:
        bundle: folder or archive that ``bundle`` has written.
        digest: of the bundle, as ``bundle`` has shown it.

    Raises:
        RequestError: the plan, or the bundle, has no such model.
        ConflictError: the bundle has another digest.
        PackageError: no trusted key signed the package, or it is altered.
        PlaceError: the bundle cannot be read.
        StoreError: a disk, the storage or the database refused the write.
    """
    project.applied.model(model)
    with _opened(bundle) as folder:
        if (found := digest_of(folder)) != digest:
            fix = "use the digest that `skewless bundle` has shown, or bundle again"
            raise ConflictError(f"bundle {bundle}", f"has the digest {found}", value=digest, fix=fix)
        body = read_bundle(folder)
        check_known("model of the bundle", model, sorted(body["champions"]))
        source = _verify(project, folder, model, body["champions"][model]["version"])
        origin = PackageOrigin(bundle=digest, version=body["champions"][model]["version"], manifest=source.digest)
        known = find_copy(project.store, model, source)
        version = known
        if not dry_run and known is None:
            project.store.approvals.put_origin(model, source.content, origin)  # first: both are visible at once
            version = copy_package(project.store, model, source).version
    return Adoption(model=model, version=version, content=source.content, is_new=known is None, origin=origin)


def _verify(project: Workspace, folder: Path, model: str, version: str) -> VerifiedPackage:
    try:
        return verify_folder(package_folder(folder, model, version), model, version, project.store.trust)
    except PackageError as error:
        if "trust" not in error.problem:
            raise
        fix = "add the public key of the other environment to the setting trusted_keys; `skewless sign` shows it there"
        raise PackageError(error.thing, error.problem, value=error.value, fix=fix) from error


@contextmanager
def _opened(bundle: Path) -> Iterator[Path]:
    """Yield the folder of a bundle; an archive is unpacked for that long."""
    if bundle.is_dir():
        yield bundle
        return
    with tempfile.TemporaryDirectory() as name, translate_disk_errors(bundle):
        folder = Path(name)
        unpack(bundle, folder)
        yield folder


@audited()
def approve(
    project: Workspace, model: str, version: str | None = None, *, by: str, reason: str, dry_run: bool = False
) -> Approval:
    """Record that a person approves a version; the setting ``approvals`` says how many a promotion needs.

    Args:
        version: None: the latest.
        by: name of the person; it is believed, not checked.
        reason: a sentence, or a link.

    Raises:
        RequestError: the name or the reason is empty, or too long.
        PackageError: the version does not exist.
        StoreError: the database is unavailable; nothing was recorded.
    """
    for option, text in (("--by", by), ("--reason", reason)):
        if not text.strip() or len(text) > _MOST_TEXT:
            fix = f"give 1 to {_MOST_TEXT:,} characters"
            raise RequestError(f"option {option}", "is empty or too long", value=text[:40], fix=fix)
    version = latest_version(project, model) if version is None else version
    digest, at_us = project.packages.manifest_digest(model, version), project.clock.now_us()
    approval = Approval(version=version, digest=digest, by=by.strip(), reason=reason.strip(), at_us=at_us)
    if not dry_run:
        project.store.approvals.add(model, approval)
    return approval
