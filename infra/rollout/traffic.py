"""The traffic policies of a project's models: numbered files, replaced by compare-and-set, history kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from skewless.contract.errors import ConflictError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.storage.names import model_folder, version_folder
from skewless.infra.storage.numbered_files import NumberedFiles


class Traffic:
    """The policies below one packages folder, at ``<model>/traffic/NNNNNN.json``; the newest one is in force.

    Args:
        packages: folder of all models' packages.
    """

    def __init__(self, packages: Path) -> None:
        self._packages = packages

    def get(self, model: str) -> TrafficPolicy | None:
        """Return the policy in force, None if the model never had one.

        Raises:
            PackageError: its file is damaged.
        """
        files = self._files(model)
        numbers = files.numbers()
        return _policy(files, numbers[-1], files.read(numbers[-1])) if numbers else None

    def number(self, model: str) -> int | None:
        """Return the number of the policy in force, without reading it."""
        numbers = self._files(model).numbers()
        return numbers[-1] if numbers else None

    def history(self, model: str) -> list[TrafficPolicy]:
        """Return every policy, oldest first."""
        files = self._files(model)
        return [_policy(files, sequence, data) for sequence, data in files.read_latest_first()][::-1]

    def replace(self, model: str, policy: TrafficPolicy, *, expect: int | None) -> TrafficPolicy:
        """Put a policy in force in the place of the one that is expected; return it with its number.

        Args:
            expect: number of the policy that must be in force now; None: none ever was.

        Raises:
            ConflictError: another policy is in force, now or by the time of the write.
            PackageError: it names a version that does not exist.
            StoreError: the disk refused; nothing has changed.
        """
        for version in versions_of(policy):
            version_folder(self._packages, model, version)
        files = self._files(model)
        if self.number(model) != expect:
            raise self._conflict(model, expect)
        placed = replace(policy, number=(expect or 0) + 1)
        try:
            files.append(placed.number, placed.as_dict())
        except FileExistsError as error:
            raise self._conflict(model, expect) from error
        return placed

    def _files(self, model: str) -> NumberedFiles:
        folder = model_folder(self._packages, model)
        return NumberedFiles(folder / "traffic", folder / ".traffic.lock", "traffic policy")

    def _conflict(self, model: str, expect: int | None) -> ConflictError:
        found = self.number(model)
        return ConflictError(
            f"traffic of model {model!r}",
            f"is under policy {found or 'none'}, not {expect or 'none'}",
            fix="look at its history and decide again",
        )


def versions_of(policy: TrafficPolicy) -> list[str]:
    """Return the versions that a policy needs, the champion first, each once.

    >>> versions_of(TrafficPolicy(number=1, phase="ab", champion="000001", challenger="000002", shadows=("000001",)))
    ['000001', '000002']
    """
    named = (policy.champion, policy.challenger, *policy.shadows)
    return list(dict.fromkeys(version for version in named if version is not None))


def _policy(files: NumberedFiles, sequence: int, data: Any) -> TrafficPolicy:  # noqa: ANN401 - any JSON value
    try:
        return TrafficPolicy.from_dict(data)
    except (TypeError, KeyError, ValueError) as error:
        raise files.corrupt_error(sequence) from error
