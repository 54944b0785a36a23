"""The traffic policies of a project's models: numbered files, replaced by compare-and-set, with a history."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from skewless.contract.errors import ConflictError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.storage.names import model_folder, version_folder
from skewless.infra.storage.numbered_files import NumberedFiles


class Traffic:
    """The policies in one packages folder, at ``<model>/traffic/NNNNNN.json``; the latest policy is current.

    Args:
        packages: folder of all models' packages.
    """

    def __init__(self, packages: Path) -> None:
        self._packages = packages

    def get(self, model: str) -> TrafficPolicy | None:
        """Return the current policy, None if the model never had one.

        Raises:
            PackageError: its file is corrupt.
        """
        files = self._files(model)
        numbers = files.numbers()
        return _decode_policy(files, numbers[-1], files.read(numbers[-1])) if numbers else None

    def number(self, model: str) -> int | None:
        """Return the number of the current policy, without reading it."""
        numbers = self._files(model).numbers()
        return numbers[-1] if numbers else None

    def history(self, model: str) -> list[TrafficPolicy]:
        """Return every policy, oldest first."""
        files = self._files(model)
        return [_decode_policy(files, sequence, data) for sequence, data in files.read_latest_first()][::-1]

    def replace(self, model: str, policy: TrafficPolicy, *, expect: int | None) -> TrafficPolicy:
        """Replace the expected policy; return the new policy with its number.

        Args:
            expect: number of the policy that must be current; None: the model never had a policy.

        Raises:
            ConflictError: another policy is current, now or at the time of the write.
            PackageError: the policy names a version that does not exist.
            StoreError: the disk refused the write; the policy is unchanged.
        """
        for version in versions_of(policy):
            # Raises if the version does not exist.
            version_folder(self._packages, model, version)
        files = self._files(model)
        if self.number(model) != expect:
            raise self._conflict(model, expect)
        numbered = replace(policy, number=(expect or 0) + 1)
        try:
            # Another process may have written a policy since the check above: the append decides.
            files.append(numbered.number, numbered.as_dict())
        except FileExistsError as error:
            raise self._conflict(model, expect) from error
        return numbered

    def _files(self, model: str) -> NumberedFiles:
        folder = model_folder(self._packages, model)
        return NumberedFiles(folder / "traffic", folder / ".traffic.lock", "traffic policy")

    def _conflict(self, model: str, expect: int | None) -> ConflictError:
        current = self.number(model)
        return ConflictError(
            f"traffic of model {model!r}",
            f"is under policy {current or 'none'}, not {expect or 'none'}",
            fix="read its history and decide again",
        )


def versions_of(policy: TrafficPolicy) -> list[str]:
    """Return the distinct versions that a policy needs, the champion first.

    >>> versions_of(TrafficPolicy(number=1, phase="ab", champion="000001", challenger="000002", shadows=("000001",)))
    ['000001', '000002']
    """
    versions = (policy.champion, policy.challenger, *policy.shadows)
    return list(dict.fromkeys(version for version in versions if version is not None))


def _decode_policy(files: NumberedFiles, sequence: int, data: Any) -> TrafficPolicy:  # noqa: ANN401 - any JSON value
    try:
        return TrafficPolicy.from_dict(data)
    except (TypeError, KeyError, ValueError) as error:
        raise files.corrupt_error(sequence) from error
