"""Prometheus metrics of one worker, and of several as one server; docs/metrics.md describes each."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from skewless.contract.errors import StoreError
from skewless.infra.models.runtimes.certification import Certificate
from skewless.infra.models.runtimes.choice import RuntimeTrial
from skewless.infra.models.runtimes.fallback import FallbackRuntime
from skewless.infra.models.runtimes.port import Runtime
from skewless.infra.models.verdicts.last_verdicts import Freshness, LastParity
from skewless.infra.platform.alerts.alerts import Alert
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.serving.metrics.series import Buckets, Count, Family, Gauge, Series
from skewless.serving.peer_workers import PeerWorkers

_STAGE_SECONDS = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
_SECONDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024, 4_096, 16_384)
_DISTANCES = (1e-6, 1e-4, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 10, 100)
_AGES = (0.1, 1, 10, 60, 300, 900, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)
_MOST_WAIT_S = 0.2  # a worker gives another one half a second for its metrics
_Checks = tuple[list[LastParity], list[Alert], list[Freshness]]
_log = EventLogger()
_OK = 200


class Metrics:
    """All metrics of one process. A family is called with its labels; a family without labels has its series at once.

    Args:
        parity: returns the last parity verdict of each view; called, like the others, by ``refresh``, in a thread.
        alerts: returns the open alerts.
        freshness: returns the last measured freshness of each view.

    Attributes:
        families: all families, without those of the process, which prometheus_client provides.
    """

    def __init__(
        self,
        parity: Callable[[], Iterable[LastParity]] = tuple,
        alerts: Callable[[], Iterable[Alert]] = tuple,
        freshness: Callable[[], Iterable[Freshness]] = tuple,
    ) -> None:
        self._read_checks: Callable[[], _Checks] = lambda: (list(parity()), list(alerts()), list(freshness()))
        self._checks: _Checks = [], [], []
        self._reading: asyncio.Task[None] | None = None
        self._has_failed = False
        self._shown_causes: set[tuple[str, str]] = set()  # remembered, so that a cause that disappears is shown as 0
        self._shown_alerts: set[tuple[str, str, str]] = set()  # as above
        self._fallbacks: dict[tuple[str, str], weakref.ref[FallbackRuntime]] = {}
        self.families: list[Family[Series]] = []
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._add_requests()
        self._add_batches()
        self._add_features()
        self._add_models()
        self._add_traffic()
        self._add_server()

    def show_model(
        self, model: str, version: str, certificate: Certificate, trials: Sequence[RuntimeTrial], runtime: Runtime
    ) -> None:
        """Show which runtimes score a model: their certificates and times, and from now on their failures."""
        for item in trials:
            if item.role == "refused":
                self.runtime_refused(model, version, item.runtime).set(1)
            elif item.seconds is not None:
                self.runtime_seconds(model, version, item.runtime).set(item.seconds)
        for current in (certificate, *(item.certificate for item in trials)):
            if current is not None:
                self.show_certificate(model, version, current)
        if isinstance(runtime, FallbackRuntime):
            # Weak: the metrics must not keep an unloaded model in memory.
            self._fallbacks[model, version] = weakref.ref(runtime)

    def show_certificate(self, model: str, version: str, certificate: Certificate) -> None:
        """Show the certificate of a runtime."""
        labels = (model, version, certificate.runtime_id)
        self.certified_rows(*labels).set(certificate.rows)
        self.certified_bit_equal(*labels).set(certificate.bit_equal)
        self.certified_difference(*labels).set(certificate.largest_difference)

    def forget(self, model: str, version: str) -> None:
        """Remove all series of an unloaded version, so that reloads do not accumulate series."""
        self._fallbacks.pop((model, version), None)
        for family in self.families:
            family.forget(model=model, version=version)

    async def refresh(self) -> None:
        """Read parity, alerts and freshness again; while the database does not answer, their last values stay."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(asyncio.to_thread(self._try_read))
        await asyncio.wait([self._reading], timeout=_MOST_WAIT_S)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        verdicts, alerts, freshness = self._checks
        self._show_parity(verdicts)
        self._show_alerts(alerts)
        for item in freshness:
            if item.newest_us is not None:
                self.newest_event(item.view).set(item.newest_us / 1e6)
        self._show_runtimes()
        lines = [line for family in self.families for line in family.lines()]
        return "\n".join([*lines, ""]).encode() + generate_latest(self._process)

    def _add_requests(self) -> None:
        self.requests = self._counter(
            "skewless_requests", "Prediction requests, by outcome", "model", "version", "outcome"
        )
        self.refused = self._counter("skewless_refused_requests", "Requests rejected before any work", "reason")
        self.seconds = self._histogram("skewless_request_seconds", "Latency of a request", _SECONDS)()
        self.stage = self._histogram(
            "skewless_stage_seconds", "Time of one stage of a request", _STAGE_SECONDS, "stage"
        )
        self.in_flight = self._gauge("skewless_requests_in_flight", "Requests admitted and not yet answered")()
        self.waiting = self._gauge("skewless_requests_waiting", "Requests queued until the server has room")()
        self.rows = self._counter("skewless_predictions", "Predicted rows", "model", "version")
        self.out_of_bounds = self._counter(
            "skewless_out_of_bounds", "Values outside the model's bounds", "model", "version", "feature"
        )

    def _add_batches(self) -> None:
        self.batch_requests = self._histogram("skewless_batch_requests", "Requests scored in one batch", _SIZES)()
        self.batch_rows = self._histogram("skewless_batch_rows", "Rows scored in one batch", _SIZES)()
        self.queue_depth = self._gauge("skewless_queue_depth", "Requests that wait for the next batch")()
        self.hits = self._counter("skewless_cache_hits", "Rows found in a cache", "cache")
        self.misses = self._counter("skewless_cache_misses", "Rows missing in a cache", "cache")

    def _add_features(self) -> None:
        self.reads = self._counter("skewless_feature_reads", "Rows read, by view and status", "view", "status")
        self.ages = self._histogram("skewless_feature_age_seconds", "Age of rows read from the store", _AGES, "view")
        self.stale = self._counter("skewless_stale_reads", "Rows older than the view's freshness limit", "view")
        self.watermark = self._gauge(
            "skewless_view_watermark_seconds", "Watermark of a view at its last read, Unix time", "view"
        )
        self.breaker = self._gauge("skewless_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open")()
        self.trips = self._counter("skewless_breaker_trips", "Times that the circuit breaker opened")()
        self.skew = self._gauge("skewless_clock_skew_seconds", "Clock of the online store minus clock of this server")()
        self.mismatches = self._gauge(
            "skewless_parity_mismatches",
            "Entities that differed from the log in the last parity check",
            "view",
            "cause",
        )
        self.compared = self._gauge("skewless_parity_compared", "Entities compared in the last parity check", "view")
        self.newest_event = self._gauge(
            "skewless_view_newest_event_seconds", "Time of a view's latest event in the last check, Unix time", "view"
        )

    def _add_models(self) -> None:
        labels = ("model", "version", "runtime")
        self.certified_rows = self._gauge("skewless_certified_rows", "Reference rows compared at load", *labels)
        self.certified_bit_equal = self._gauge(
            "skewless_certified_bit_equal", "1 if all margins had the same bits", *labels
        )
        self.certified_difference = self._gauge(
            "skewless_certified_difference", "Largest difference between margins", *labels
        )
        self.runtime_seconds = self._gauge(
            "skewless_runtime_seconds", "Time of one call with a batch of rows, measured at load", *labels
        )
        self.runtime_refused = self._gauge("skewless_runtime_refused", "1 for a runtime that may not serve", *labels)
        self.runtime_failures = self._counter(
            "skewless_runtime_failures", "Batches that failed on a runtime; the model's library scored them", *labels
        )
        self.reloads = self._counter("skewless_model_reloads", "Versions swapped in", "model")
        self.model_refused = self._gauge(
            "skewless_model_refused", "1 while the latest version of a model cannot be served", "model"
        )

    def _add_traffic(self) -> None:
        arm = ("model", "version", "role")
        self.arm_requests = self._counter("skewless_arm_requests", "Requests under a traffic policy, by role", *arm)
        self.arm_failures = self._counter("skewless_arm_failures", "Requests that failed through the server", *arm)
        self.shadow_skipped = self._counter(
            "skewless_shadow_skipped", "Rows that a shadow did not score", "model", "version", "reason"
        )
        self.shadow_difference = self._histogram(
            "skewless_shadow_difference", "Difference of a shadow's score, absolute", _DISTANCES, "model", "version"
        )
        self.traffic_policy = self._gauge("skewless_traffic_policy", "Number of the applied policy; 0: none", "model")
        self.traffic_share = self._gauge("skewless_traffic_share", "Share of traffic of the challenger", "model")
        self.traffic_refused = self._gauge(
            "skewless_traffic_refused", "1 while the latest policy cannot be applied", "model"
        )

    def _add_server(self) -> None:
        self.alert = self._gauge("skewless_alert", "1 while an alert is open", "name", "severity", "subject")
        self.feedback = self._counter("skewless_feedback", "Outcomes written to the outcome log", "by", "kind")
        self.database_down = self._gauge("skewless_database_down", "1 while the project's database is down")()
        self.files_waiting = self._gauge(
            "skewless_log_files_waiting", "Files of the logs on this machine that could not be shipped"
        )()
        self.dropped = self._counter("skewless_log_dropped", "Predictions dropped by the log", "reason")
        self.spans_sent = self._counter("skewless_spans_sent", "Spans that the collector has received")()
        self.spans_dropped = self._counter("skewless_spans_dropped", "Spans that were lost", "reason")
        self.disk_free = self._gauge("skewless_disk_free_ratio", "Free share of the state folder's disk")()
        self.certificate_expires = self._gauge(
            "skewless_certificate_expires_seconds", "End of the TLS certificate, Unix time"
        )
        self.restarts = self._counter("skewless_worker_restarts", "Restarts of this worker after it exited")()
        self.unanswered = self._counter("skewless_workers_unanswered", "Requests to other workers without a reply")()

    def _counter(self, name: str, text: str, *labels: str) -> Family[Count]:
        family = Family("counter", name, text, labels, Count)
        self.families.append(family)
        return family

    def _gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        family = Family("gauge", name, text, labels, Gauge)
        self.families.append(family)
        return family

    def _histogram(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> Family[Buckets]:
        family = Family("histogram", name, text, labels, lambda: Buckets(bounds))
        self.families.append(family)
        return family

    def _try_read(self) -> None:
        try:
            self._checks, self._has_failed = self._read_checks(), False
        except StoreError as error:
            if not self._has_failed:
                _log.warning("checks_not_read", error=str(error))
            self._has_failed = True

    def _show_parity(self, verdicts: Sequence[LastParity]) -> None:
        current = {(verdict.view, cause): n for verdict in verdicts for cause, n in verdict.by_cause.items()}
        self._shown_causes |= current.keys()
        for view, cause in self._shown_causes:
            self.mismatches(view, cause).set(current.get((view, cause), 0))
        for verdict in verdicts:
            self.compared(verdict.view).set(verdict.compared)

    def _show_runtimes(self) -> None:
        for (model, version), reference in self._fallbacks.items():
            runtime = reference()
            if runtime is not None:
                self.runtime_failures(model, version, runtime.chosen.runtime_id).value = runtime.failures

    def _show_alerts(self, alerts: Sequence[Alert]) -> None:
        current = {(alert.name, alert.severity, alert.subject) for alert in alerts}
        self._shown_alerts |= current
        for labels in self._shown_alerts:
            self.alert(*labels).set(labels in current)


async def render_all_workers(metrics: Metrics, peers: PeerWorkers | None) -> bytes:
    """Return the metrics of all workers in Prometheus' text format, without workers that do not answer."""
    await metrics.refresh()
    if peers is None:
        return metrics.render()
    replies = await peers.send_request("GET", "/metrics")
    texts = {peers.number: metrics.render()} | {reply.worker: reply.body for reply in replies if reply.status == _OK}
    return merge({worker: texts[worker].decode() for worker in sorted(texts)}).encode()


def merge(texts: Mapping[int, str]) -> str:
    r"""Return one text for several workers: counters and histograms are summed, gauges get the label ``worker``.

    >>> one = "# HELP n_total N\n# TYPE n_total counter\nn_total 1.0\n# HELP g G\n# TYPE g gauge\ng 7.0\n"
    >>> print(merge({0: one, 1: one}), end="")
    # HELP n_total N
    # TYPE n_total counter
    n_total 2.0
    # HELP g G
    # TYPE g gauge
    g{worker="0"} 7.0
    g{worker="1"} 7.0
    """
    families: dict[str, _Family] = {}
    for worker, text in texts.items():
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                family = families.setdefault(name, _Family(text=line))
            elif line.startswith("# TYPE "):
                family.type = line
            else:
                family.add(worker, line)
    return "".join(f"{line}\n" for family in families.values() for line in family.lines())


@dataclass(kw_only=True)
class _Family:
    text: str
    type: str = ""
    samples: dict[str, float] = field(default_factory=dict)

    def add(self, worker: int, line: str) -> None:
        series_name, _, value = line.rpartition(" ")
        if self.type.endswith(" gauge"):
            self.samples[_add_worker_label(series_name, worker)] = float(value)
        else:
            self.samples[series_name] = self.samples.get(series_name, 0.0) + float(value)

    def lines(self) -> Iterable[str]:
        return [self.text, self.type, *(f"{series_name} {value!r}" for series_name, value in self.samples.items())]


def _add_worker_label(series_name: str, worker: int) -> str:
    name, brace, labels = series_name.partition("{")
    return f'{name}{{worker="{worker}"{"," if brace else "}"}{labels}'
