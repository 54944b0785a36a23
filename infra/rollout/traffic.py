"""The traffic policies of a project's models: numbered records, replaced by compare-and-set, with a history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from skewless.contract.errors import ConflictError, PackageError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.storage.database import Database
from skewless.infra.storage.documents import Records
from skewless.infra.storage.names import check_model_name
from skewless.infra.storage.package_folder import PackageFolder


class Traffic:
    """The traffic policies of a project's models; the latest policy of a model is current.

    Args:
        packages: of all models.
        database: of the project.
    """

    def __init__(self, packages: PackageFolder, database: Database) -> None:
        self._packages = packages
        self._database = database
        self._policies = Records(database, "traffic_policy")

    def get(self, model: str) -> TrafficPolicy | None:
        """Return the current policy, None if the model never had one.

        Raises:
            PackageError: it is corrupt.
        """
        last = self._policies.latest(check_model_name(model))
        return _decode_policy(model, *last) if last else None

    def number(self, model: str) -> int | None:
        """Return the number of the current policy, without reading it."""
        return self._policies.latest_number(check_model_name(model)) or None

    def history(self, model: str) -> list[TrafficPolicy]:
        """Return every policy, oldest first."""
        records = self._policies.read_latest_first(check_model_name(model))
        return [_decode_policy(model, number, body) for number, body in records][::-1]

    def replace(self, model: str, policy: TrafficPolicy, *, expect: int | None) -> TrafficPolicy:
        """Replace the expected policy; return the new policy with its number.

        Args:
            expect: number of the policy that must be current; None: the model never had a policy.

        Raises:
            ConflictError: another policy is current.
            PackageError: the policy names a version that does not exist.
            StoreError: the database is unavailable; the policy is unchanged.
        """
        for version in versions_of(policy):
            self._packages.check_version(model, version)
        numbered = replace(policy, number=(expect or 0) + 1)
        with self._database.transaction():
            current = self.number(model)
            if current != expect:
                problem = f"is under policy {current or 'none'}, not {expect or 'none'}"
                raise ConflictError(f"traffic of model {model!r}", problem, fix="read its history and decide again")
            self._policies.append(model, numbered.number, numbered.as_dict())
        return numbered


def versions_of(policy: TrafficPolicy) -> list[str]:
    """Return the distinct versions that a policy needs, the champion first.

    >>> versions_of(TrafficPolicy(number=1, phase="ab", champion="000001", challenger="000002", shadows=("000001",)))
    ['000001', '000002']
    """
    versions = (policy.champion, policy.challenger, *policy.shadows)
    return list(dict.fromkeys(version for version in versions if version is not None))


def _decode_policy(model: str, number: int, body: Any) -> TrafficPolicy:  # noqa: ANN401 - any JSON value
    try:
        return TrafficPolicy.from_dict(body)
    except (TypeError, KeyError, ValueError) as error:
        fix = "restore the database from a backup"
        raise PackageError(f"traffic of model {model!r}", f"has a corrupt policy {number}", fix=fix) from error
