"""Approvals of model versions by people, and the origins of versions that were copied from another environment."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from skewless.contract.plain_record import PlainRecord
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.names import check_model_name


@dataclass(frozen=True, kw_only=True)
class Approval(PlainRecord):
    """The approval of a version by a person.

    Args:
        digest: of the package that was approved.
        by: name, as it was given; it is not authenticated.
        reason: a sentence, or a link.
        at_us: UTC microseconds.
    """

    version: str
    digest: str
    by: str
    reason: str
    at_us: int


@dataclass(frozen=True, kw_only=True)
class PackageOrigin(PlainRecord):
    """Where a copied version comes from.

    Args:
        bundle: digest of the bundle.
        version: in the other project.
        manifest: digest of its package there.
    """

    bundle: str
    version: str
    manifest: str


class Approvals:
    """The approvals of the versions of a project's models, and the origins of copied versions.

    Args:
        database: of the project.
    """

    def __init__(self, database: Database) -> None:
        self._records, self._origins = Records(database, "approval"), Documents(database, "origin")

    def put_origin(self, model: str, content: str, origin: PackageOrigin) -> None:
        """Store where the version comes from that will have these files."""
        self._origins.put(f"{check_model_name(model)}/{content}", asdict(origin))

    def origin(self, model: str, content: str) -> PackageOrigin | None:
        """Return where the version with these files comes from; None: it was trained here."""
        body = self._origins.get(f"{check_model_name(model)}/{content}")
        return None if body is None else PackageOrigin(**body)

    def add(self, model: str, approval: Approval) -> None:
        """Store an approval.

        Raises:
            StoreError: the database is unavailable; nothing was added.
        """
        self._records.add(check_model_name(model), asdict(approval))

    def read(self, model: str, version: str) -> list[Approval]:
        """Return the approvals of a version, oldest first."""
        found = [Approval(**body) for _, body in self._records.read_latest_first(check_model_name(model))]
        return [approval for approval in reversed(found) if approval.version == version]
