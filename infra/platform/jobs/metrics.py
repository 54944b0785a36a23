"""Prometheus metrics of a scheduler; each is described in docs/scheduler.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.infra.platform.jobs.run import Run


class RunMetrics(Collector):
    """Metrics of the runs that ended in one scheduler process.

    Args:
        is_holder: returns whether the process holds the lease now.
    """

    def __init__(self, is_holder: Callable[[], bool] = lambda: False) -> None:
        self.is_holder = is_holder
        self._ended = Counter[tuple[str, str]]()
        self._seconds: dict[str, float] = {}
        self._last_done_us: dict[str, int] = {}

    def count(self, run: Run) -> None:
        """Count a run that has ended."""
        self._ended[run.id.job, run.state] += 1
        self._seconds[run.id.job] = self._seconds.get(run.id.job, 0.0) + (run.seconds or 0.0)
        if run.state == "done":
            self._last_done_us[run.id.job] = run.ended_us or 0

    def collect(self) -> Iterable[Metric]:
        """Return the current metrics."""
        ended = CounterMetricFamily("skewless_runs", "Runs that ended.", labels=("job", "state"))
        # A copy: the scheduler's thread may add an entry while the thread of the metrics server reads.
        for key, n in list(self._ended.items()):
            ended.add_metric(key, n)
        seconds = CounterMetricFamily("skewless_run_seconds", "Duration of the runs, seconds.", labels=("job",))
        for job, total in list(self._seconds.items()):
            seconds.add_metric((job,), total)
        last = GaugeMetricFamily("skewless_run_last_done_timestamp_seconds", "Last success.", labels=("job",))
        for job, at_us in list(self._last_done_us.items()):
            last.add_metric((job,), at_us / 1e6)
        holder = GaugeMetricFamily("skewless_scheduler_holder", "1 if this process holds the lease.")
        holder.add_metric((), float(self.is_holder()))
        return [ended, seconds, last, holder]
