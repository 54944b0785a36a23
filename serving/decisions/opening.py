"""Opens the deciders of a project's stream workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from skewless.contract.decisions import DecisionStream
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import EventSource
from skewless.infra.decisions.decision_log import DecisionLog
from skewless.infra.decisions.deliveries import Deliveries, SinkMetrics
from skewless.infra.decisions.delivery import SinkContext
from skewless.infra.decisions.exact_windows import ExactWindows
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import OnlineStore
from skewless.infra.online.store import open_blocking_reader
from skewless.infra.packages.store import PackageStore
from skewless.infra.runtimes.candidates import ScoringTarget
from skewless.infra.streams.streams import Streams
from skewless.serving.decisions.decider import SourceDecider
from skewless.serving.decisions.models import DecidingModels
from skewless.serving.decisions.reads import DecisionReads
from skewless.serving.decisions.scoring import EventScorer
from skewless.serving.metrics.metrics import Metrics


@dataclass(kw_only=True, eq=False)
class Deciders:
    """Opens deciders for the sources of a project, and delivers their decisions; see ``DeciderPool``.

    Args:
        streams: of the project.
        store: the packages of its models.
        metrics: of models and views.
    """

    streams: Streams
    store: PackageStore
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        """Begin without sinks."""
        streams = self.streams
        context = SinkContext(state=streams.state, settings=streams.settings, redis_url=lambda: self.streams.stream_url)
        self._deliveries = Deliveries(context)

    def load(self, decisions: Sequence[DecisionStream]) -> None:
        """Deliver to the sinks of these decision streams; see ``DeciderPool``."""
        self._deliveries.set_decisions(decisions)

    def is_idle(self) -> bool:
        """Return whether no decision waits for a sink that this process can reach; see ``DeciderPool``."""
        return not any(counts.waiting and counts.trouble is None for counts in self._deliveries.counts)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of the sinks."""
        return SinkMetrics(lambda: self._deliveries.counts).collect()

    def close(self) -> None:
        """End the deliveries."""
        self._deliveries.close()

    def open(
        self, plan: FeaturePlan, source: EventSource, decisions: Sequence[DecisionStream], store: OnlineStore
    ) -> SourceDecider | None:
        """Return the decider of a source; None: no decision stream reads it.

        Args:
            plan: the applied plan.
            source: of the events.
            decisions: all decision streams of the plan.
            store: the online store.

        Raises:
            StoreError: the database or the store is unavailable.
        """
        own = [stream for stream in decisions if stream.source == source.name]
        if not own:
            return None
        streams, settings = self.streams, self.streams.settings
        reader = open_blocking_reader(streams.redis_url)
        history = MarkerHistory.from_runs(streams.state, [plan], reader.on_connect)
        measure_skew: Callable[[], int] = store.clock_offset_us
        return SourceDecider(
            streams=own,
            source=source,
            plan=plan,
            log=DecisionLog(streams.state),
            scorer=EventScorer(
                source=source,
                models=DecidingModels(self.store, reader, self.metrics, ScoringTarget(second=settings.second_runtime)),
                reads=DecisionReads(
                    source=source,
                    plan=plan,
                    reader=reader,
                    # A cursor of its own, because other threads use the connection.
                    windows=ExactWindows(streams.state, streams.connection.cursor()),
                    marker_history=history,
                    clock=streams.clock,
                    measure_skew=measure_skew,
                ),
                metrics=self.metrics,
                clock=streams.clock,
            ),
            clock=streams.clock,
            on_decided=self._deliveries.offer,
            has_room=self._deliveries.has_room,
        )
