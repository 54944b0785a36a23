"""Opens the deciders of a project's stream workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skewless.contract.decisions import DecisionStream
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import EventSource
from skewless.infra.decisions.decision_log import DecisionLog
from skewless.infra.decisions.exact_windows import ExactWindows
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import OnlineStore
from skewless.infra.online.store import open_blocking_reader
from skewless.infra.packages.store import PackageStore
from skewless.infra.runtimes.candidates import ScoringTarget
from skewless.infra.streams.streams import Streams
from skewless.serving.decisions.decider import OnDecided, SourceDecider
from skewless.serving.decisions.models import DecidingModels
from skewless.serving.decisions.reads import DecisionReads
from skewless.serving.decisions.scoring import EventScorer
from skewless.serving.metrics.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Deciders:
    """Opens deciders for the sources of a project.

    Args:
        streams: of the project.
        store: the packages of its models.
        metrics: of models and views.
        on_decided: called with each segment of decisions and its rows, after it is durable.
    """

    streams: Streams
    store: PackageStore
    metrics: Metrics
    on_decided: OnDecided = lambda _segment, _rows: None

    def open(
        self, plan: FeaturePlan, source: EventSource, decisions: Sequence[DecisionStream], online: OnlineStore
    ) -> SourceDecider | None:
        """Return the decider of a source; None: no decision stream reads it.

        Args:
            plan: the applied plan.
            decisions: all decision streams of the plan.
            online: the online store.

        Raises:
            StoreError: the database or the store is unavailable.
        """
        own = [stream for stream in decisions if stream.source == source.name]
        if not own:
            return None
        streams, settings = self.streams, self.streams.settings
        reader = open_blocking_reader(streams.redis_url)
        history = MarkerHistory.from_runs(streams.state, [plan], reader.on_connect)
        measure_skew: Callable[[], int] = online.clock_offset_us
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
            on_decided=self.on_decided,
        )
