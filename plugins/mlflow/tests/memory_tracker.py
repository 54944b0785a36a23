"""The reference tracker: in memory."""

from __future__ import annotations

from collections import defaultdict

from skewless.contract.errors import StoreError
from skewless_mlflow.tracked_run import TrackedRun


class MemoryTracker:
    """A tracker of this process alone.

    Args:
        away: whether every call fails, as of a server that is away.
    """

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.runs: dict[str, dict[str, TrackedRun]] = defaultdict(dict)
        self._aliases: dict[str, dict[str, str]] = defaultdict(dict)

    def published_digests(self, model: str) -> frozenset[str]:
        """Return the digests of the versions that are published whole."""
        self._answer()
        return frozenset(self.runs[model])

    def publish(self, run: TrackedRun) -> None:
        """Publish a run."""
        self._answer()
        self.runs[run.model][run.digest] = run

    def aliases(self, model: str) -> dict[str, str]:
        """Return the digest that each alias points at."""
        self._answer()
        return dict(self._aliases[model])

    def point(self, model: str, alias: str, digest: str | None) -> None:
        """Point an alias at a published version, or at none."""
        self._answer()
        if digest is None:
            self._aliases[model].pop(alias, None)
            return
        if digest not in self.runs[model]:
            raise StoreError("tracker", "holds no such version", value=digest, fix="publish it first")
        self._aliases[model][alias] = digest

    def _answer(self) -> None:
        if self.away:
            raise StoreError("tracker", "does not answer", fix="run `skewless track` once it is back")
