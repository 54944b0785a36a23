"""Prometheus metrics of the server; each is described in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from infra.last_parity import LastParity

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The server's own registry, so that two servers in one process do not meet.

    Args:
        parity: returns the last verdict of parity on each view, asked for whenever the metrics are read.
    """

    def __init__(self, parity: Callable[[], Iterable[LastParity]] = tuple) -> None:
        self._parity = parity
        self._causes: set[tuple[str, str]] = set()  # shown as 0 once they are gone
        self._collectors = CollectorRegistry()
        self.requests = Counter(
            "skewless_requests", "Prediction requests", ["model", "outcome"], registry=self._collectors
        )
        self.rows = Counter("skewless_predictions", "Predicted rows", ["model", "version"], registry=self._collectors)
        self.seconds = Histogram(
            "skewless_request_seconds",
            "Time to answer a prediction request",
            buckets=_SECONDS,
            registry=self._collectors,
        )
        self.reads = Counter(
            "skewless_feature_reads", "Rows read, by view and status", ["view", "status"], registry=self._collectors
        )
        self.stale = Counter(
            "skewless_stale_reads", "Rows older than the view's freshness limit", ["view"], registry=self._collectors
        )
        self.dropped = Counter(
            "skewless_log_dropped", "Predictions that the log could not keep", ["reason"], registry=self._collectors
        )
        self.reloads = Counter("skewless_model_reloads", "Models swapped in", ["model"], registry=self._collectors)
        self.skew = Gauge(
            "skewless_clock_skew_seconds", "Clock of Redis minus clock of this server", registry=self._collectors
        )

        self.mismatches = Gauge(
            "skewless_parity_mismatches",
            "Entities that were not what the log says when parity last looked",
            ["view", "cause"],
            registry=self._collectors,
        )
        self.compared = Gauge(
            "skewless_parity_compared", "Entities that parity last compared", ["view"], registry=self._collectors
        )

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._show_parity()
        return generate_latest(self._collectors)

    def _show_parity(self) -> None:
        found = {(verdict.view, cause): n for verdict in self._parity() for cause, n in verdict.by_cause.items()}
        self._causes |= found.keys()
        for view, cause in self._causes:
            self.mismatches.labels(view, cause).set(found.get((view, cause), 0))
        for verdict in self._parity():
            self.compared.labels(verdict.view).set(verdict.compared)
