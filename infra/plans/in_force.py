"""The plan in force as long-lived processes read it: again when another one was put there."""

from __future__ import annotations

from pathlib import Path

from skewless.contract.errors import StalePlanError
from skewless.contract.plan import FeaturePlan
from skewless.infra.plans.applied import read_applied


class PlanInForce:
    """Reads the applied plan of a project; threads may share it.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._known: tuple[tuple[int, int], FeaturePlan] | None = None

    def read(self) -> FeaturePlan:
        """Return the plan.

        Raises:
            StalePlanError: nothing was applied yet, or the file is damaged.
        """
        path = self._state / "plan.json"
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise _missing(path) from None
        version, known = (stat.st_mtime_ns, stat.st_ino), self._known
        if known is None or known[0] != version:
            applied = read_applied(self._state)
            if applied is None:
                raise _missing(path)
            self._known = known = (version, applied.plan)
        return known[1]

    def hash(self) -> str:
        """Return the plan's hash; empty: there is none, or it is damaged."""
        try:
            return self.read().hash
        except StalePlanError:
            return ""


def _missing(path: Path) -> StalePlanError:
    return StalePlanError(f"file {path}", "is not there", fix="run `skewless apply`")
