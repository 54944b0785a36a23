"""Models and versions that cannot be served, with the reasons: logged once, and shown until they are resolved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from skewless.contract.errors import SkewlessError
from skewless.contract.render import hide_paths
from skewless.infra.telemetry.logger import EventLogger
from skewless.serving.metrics.metrics import Metrics

_RETRY_SECONDS = 5.0
_log = EventLogger()


class RejectedModels:
    """Reasons why a model, a model version or a traffic policy cannot be served."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reasons: dict[str, str] = {}
        self._failed_at: dict[tuple[str, str], float] = {}

    def all(self) -> dict[str, str]:
        """Return all reasons, by thing."""
        return dict(self._reasons)

    def get(self, thing: str) -> str | None:
        """Return why something was rejected; None: it was not."""
        return self._reasons.get(thing)

    def add(self, thing: str, error: SkewlessError) -> None:
        """Store and log why something was rejected."""
        reason = hide_paths(str(error))
        if self._reasons.get(thing) != reason:
            _log.error("model_refused", model=thing, error=str(error))
        self._reasons[thing] = reason
        self._metrics.model_refused(thing).set(1)

    def clear(self, thing: str) -> None:
        """Remove the reason of something that is served again."""
        if self._reasons.pop(thing, None) is not None:
            self._metrics.model_refused(thing).set(0)

    def has_failed_recently(self, name: str, version: str) -> bool:
        """Return whether a version failed in the last seconds; each attempt to load it slows down other requests."""
        oldest_at = time.monotonic() - _RETRY_SECONDS
        self._failed_at = {key: at for key, at in self._failed_at.items() if at > oldest_at}
        return (name, version) in self._failed_at

    @contextlib.contextmanager
    def record_failure(self, name: str, version: str) -> Iterator[None]:
        """Record the time if loading the version fails."""
        try:
            yield
        except SkewlessError:
            self._failed_at[name, version] = time.monotonic()
            raise
