"""Opens the deciders of a project's stream workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from prometheus_client.core import Metric

from skewless.contract.decisions import Changes, DecisionStream
from skewless.contract.errors import ConflictError, SkewlessError
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import EventSource
from skewless.infra.ingest.streams.decider import DecisionCounts
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.catalog import log_ends
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.runtimes.candidates import ScoringTarget
from skewless.infra.platform.telemetry.count_metrics import collect_counts
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import BlockingOnlineReader, OnlineStore
from skewless.infra.reads.online.store import open_blocking_reader
from skewless.serving.metrics.metrics import Metrics
from skewless_decisions.changes import ChangeDecider, CurrentRows, find_current_times
from skewless_decisions.conditions import Condition, StreamCondition
from skewless_decisions.decider import SourceDecider
from skewless_decisions.decision_log import DecisionLog
from skewless_decisions.deliveries import Deliveries, collect_sinks
from skewless_decisions.events import FindTimes, find_times
from skewless_decisions.exact_windows import ExactWindows
from skewless_decisions.models import DecidingModels
from skewless_decisions.reads import DecisionReads
from skewless_decisions.scoring import EventScorer
from skewless_decisions.sink_adapters import SinkContext

_COUNTED = {
    "decided": "Events that were decided",
    "skipped": "Events that did not meet the condition, or came late and are skipped",
    "late": "Events that were decided although they came late",
    "dead": "Events that can never be decided",
    "recomputed": "Windows that were computed from the log",
}
_GAUGES: dict[str, tuple[str, Callable[[DecisionCounts], float | None]]] = {
    "lag": ("Accepted events that are not decided yet", lambda counts: counts.lag),
    "waiting": ("1 if no event can be decided", lambda counts: float(counts.trouble is not None)),
}


def collect_decisions(counts: Sequence[DecisionCounts]) -> Iterator[Metric]:
    """Yield the metrics of decision streams, each with one sample per stream."""
    return collect_counts("skewless_decisions", "stream", counts, _COUNTED, _GAUGES)


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
        context = SinkContext(
            state=streams.state,
            settings=streams.settings,
            redis_url=lambda: self.streams.stream_url,
            clock=streams.clock,
        )
        self._deliveries = Deliveries(context)
        self._changes: list[ChangeDecider] = []

    def load(self, plan: FeaturePlan, decisions: Sequence[DecisionStream], store: OnlineStore) -> None:
        """Use the decision streams of a newly applied plan; see ``DeciderPool``."""
        DecisionLog(self.streams.state).keep_only({stream.name for stream in decisions})
        self._deliveries.set_decisions(decisions)
        changes = []
        for stream in decisions:
            if isinstance(stream.when, Changes):
                view, reader = plan.view(stream.when.view), open_blocking_reader(self.streams.redis_url)
                decider = self._open(
                    plan,
                    [stream],
                    name=view.name,
                    event_column=view.source.event_column,
                    conditions=[CurrentRows(plan.project, view, reader)],
                    reader=reader,
                    store=store,
                    find_times=partial(find_current_times, self.streams.clock),
                )
                changes.append(ChangeDecider(self.streams.state, plan.project, view, reader, decider))
        self._close_changes()
        self._changes = changes

    @property
    def counts(self) -> Sequence[DecisionCounts]:
        """The counts of the streams that decide changes of rows."""
        return [counts for change in list(self._changes) for counts in change.decider.counts]

    def step(self) -> None:
        """Decide some changes of rows; see ``DeciderPool``."""
        for change in self._changes:
            try:
                change.step()
            except ConflictError:
                pass  # another process decides them
            except SkewlessError as error:
                change.decider.note_trouble(str(error))

    def is_idle(self) -> bool:
        """Return whether no decision waits for a sink that this process can reach; see ``DeciderPool``."""
        waits = any(counts.waiting and counts.trouble is None for counts in self._deliveries.counts)
        return not waits and not any(counts.lag for counts in self.counts)

    def collect(self, counts: Sequence[DecisionCounts]) -> Iterable[Metric]:
        """Yield the metrics of the decision streams and of the sinks; see ``DeciderPool``."""
        yield from collect_decisions(counts)
        yield from collect_sinks(self._deliveries.counts)

    def close(self) -> None:
        """End the deliveries."""
        self._close_changes()
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
        reader = open_blocking_reader(self.streams.redis_url)
        log, ends = DecisionLog(self.streams.state), log_ends(self.streams.state, source.name)
        for stream in own:
            log.begin(stream.name, ends)
        reads = self._open_reads(plan, source.name, reader, store)
        conditions = [StreamCondition(stream, source, plan, reads) for stream in own]
        return self._open(
            plan,
            own,
            name=source.name,
            event_column=source.event_column,
            conditions=conditions,
            reader=reader,
            store=store,
            reads=reads,
        )

    def _open(
        self,
        plan: FeaturePlan,
        streams: Sequence[DecisionStream],
        *,
        name: str,
        event_column: str,
        conditions: Sequence[Condition],
        reader: BlockingOnlineReader,
        store: OnlineStore,
        find_times: FindTimes = find_times,
        reads: DecisionReads | None = None,
    ) -> SourceDecider:
        project = self.streams
        target = ScoringTarget(second=project.settings.second_runtime)
        return SourceDecider(
            streams=streams,
            source=name,
            conditions=conditions,
            log=DecisionLog(project.state),
            scorer=EventScorer(
                event_column=event_column,
                models=DecidingModels(self.store, reader, self.metrics, target),
                reads=reads or self._open_reads(plan, "", reader, store),
                metrics=self.metrics,
                clock=project.clock,
            ),
            clock=project.clock,
            find_times=find_times,
            on_decided=self._deliveries.offer,
            has_room=self._deliveries.has_room,
        )

    def _open_reads(
        self, plan: FeaturePlan, source: str, reader: BlockingOnlineReader, store: OnlineStore
    ) -> DecisionReads:
        streams = self.streams
        return DecisionReads(
            source=source,
            plan=plan,
            reader=reader,
            # A cursor of its own, because other threads use the connection.
            windows=ExactWindows(streams.state, streams.connection.cursor()),
            marker_history=MarkerHistory.from_runs(streams.state, [plan], reader.on_connect),
            clock=streams.clock,
            measure_skew=store.clock_offset_us,
        )

    def _close_changes(self) -> None:
        for change in self._changes:
            change.decider.close()
        self._changes = []
