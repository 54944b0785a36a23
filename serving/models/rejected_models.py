"""Which models and versions cannot be served, and why: told once to the log, and shown until it is over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import structlog

from skewless.contract.errors import SkewlessError
from skewless.contract.render import hide_paths
from skewless.serving.metrics.metrics import Metrics

_RETRY_SECONDS = 5.0
_log = structlog.get_logger()


class RejectedModels:
    """Keeps what was refused: a model, a model with a version, or another thing that models rest on."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reasons: dict[str, str] = {}
        self._failed: dict[tuple[str, str], float] = {}

    def all(self) -> dict[str, str]:
        """Return all reasons, by thing."""
        return dict(self._reasons)

    def why(self, thing: str) -> str | None:
        """Return why something is refused; None: it is not."""
        return self._reasons.get(thing)

    def note(self, thing: str, error: SkewlessError) -> None:
        """Show why something is refused."""
        shown = hide_paths(str(error))
        if self._reasons.get(thing) != shown:
            _log.error("model_refused", model=thing, error=str(error))
        self._reasons[thing] = shown
        self._metrics.model_refused(thing).set(1)

    def end(self, thing: str) -> None:
        """Show a refusal no more."""
        if self._reasons.pop(thing, None) is not None:
            self._metrics.model_refused(thing).set(0)

    def waits(self, name: str, version: str) -> bool:
        """Say whether a version was refused a moment ago; opening it takes long enough to hurt others."""
        since = time.monotonic() - _RETRY_SECONDS
        self._failed = {key: at for key, at in self._failed.items() if at > since}
        return (name, version) in self._failed

    @contextlib.contextmanager
    def remembered(self, name: str, version: str) -> Iterator[None]:
        """Remember when a version was refused."""
        try:
            yield
        except SkewlessError:
            self._failed[name, version] = time.monotonic()
            raise
