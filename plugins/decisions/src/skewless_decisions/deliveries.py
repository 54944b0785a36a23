"""The deliveries of one process, and the sinks of a project as status and metrics show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
from prometheus_client.core import Metric

from skewless.contract.decisions import DecisionStream
from skewless.contract.sinks import Sink
from skewless.infra.log.catalog import Catalog, Segment
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.count_metrics import collect_counts
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless.operations.data.decision_port import SinkStatus
from skewless_decisions.decision import find_decisions
from skewless_decisions.delivery import SinkCounts, SinkDelivery
from skewless_decisions.outbox import DecisionBatch
from skewless_decisions.sink_adapters import SinkContext
from skewless_decisions.sink_positions import SinkPositions

_COUNTED = {
    "delivered": "Decisions that the sink has stored",
    "refused": "Decisions that the sink refused for good, even if it stored them when they were sent again",
    "retries": "Deliveries that failed and are tried again",
}
_GAUGES: Mapping[str, tuple[str, Callable[[SinkCounts], float | None]]] = {
    "lag": ("Rows of the prediction log that the sink has not confirmed", lambda counts: counts.waiting),
    "letters": ("Dead letters that are kept", lambda counts: counts.letters),
    "waiting": ("1 if nothing can be delivered", lambda counts: float(counts.trouble is not None)),
}


def list_sinks(decisions: Iterable[DecisionStream]) -> dict[Sink, tuple[str, ...]]:
    """Return the sinks of decision streams, each with the names of its streams."""
    streams: dict[Sink, tuple[str, ...]] = {}
    for stream in decisions:
        for sink in stream.sinks:
            streams[sink] = (*streams.get(sink, ()), stream.name)
    return streams


def read_sinks(state: ProjectState, decisions: Iterable[DecisionStream], now_us: int) -> list[SinkStatus]:
    """Return the status of each sink of some decision streams.

    Raises:
        StoreError: the database is unavailable.
    """
    database = state.database
    positions, catalog, leases = SinkPositions(database), Catalog(database), Leases(database)
    end, statuses = catalog.next_seq(PREDICTIONS), []
    for sink, streams in list_sinks(decisions).items():
        position, trouble = positions.read(sink.name), positions.read_trouble(sink.name)
        waiting = 0 if position is None else max(0, end - position.next)
        oldest = catalog.segments(PREDICTIONS, position.next, position.next) if waiting and position else []
        resent = positions.count_resent(sink.name)
        statuses.append(
            SinkStatus(
                name=sink.name,
                kind=sink.kind,
                streams=streams,
                waiting=waiting,
                lag_s=max(0.0, (now_us - oldest[0].at_us) / 1e6) if oldest else None,
                delivered=0 if position is None else position.confirmed + resent,
                refused=0 if position is None else position.refused - resent,
                letters=positions.count_letters(sink.name),
                process=leases.read_holder(f"sink {sink.name}"),
                error=None if trouble is None else trouble.error,
                since_us=None if trouble is None else trouble.since_us,
                retries=None if trouble is None else trouble.retries,
            )
        )
    return statuses


class Deliveries:
    """Delivers the decisions of a process, and of others that have died, to all sinks of the plan.

    Args:
        context: of the project.
    """

    def __init__(self, context: SinkContext) -> None:
        self._context = context
        self._deliveries: dict[str, SinkDelivery] = {}

    @property
    def counts(self) -> list[SinkCounts]:
        """The counts of each sink."""
        deliveries = list(self._deliveries.values())
        for delivery in deliveries:
            delivery.count_waiting()
        return [delivery.counts for delivery in deliveries]

    def set_decisions(self, decisions: Iterable[DecisionStream]) -> None:
        """Deliver to the sinks of these decision streams from now on; call it before their first decision.

        Raises:
            StoreError: the database is unavailable.
        """
        sinks = {sink.name: (sink, streams) for sink, streams in list_sinks(decisions).items()}
        for name, delivery in list(self._deliveries.items()):
            if sinks.get(name) != (delivery.sink, delivery.streams):
                del self._deliveries[name]
                delivery.stop()
        for name, (sink, streams) in sinks.items():
            if name not in self._deliveries:
                self._deliveries[name] = SinkDelivery(self._context, sink, streams)
                self._deliveries[name].start()

    def offer(self, segment: Segment, rows: pa.Table) -> None:
        """Deliver decisions that were just appended to the prediction log as a segment."""
        deliveries = list(self._deliveries.values())
        if not deliveries:
            return
        decisions = find_decisions(rows, {stream for delivery in deliveries for stream in delivery.streams})
        for delivery in deliveries:
            found = [item for item in decisions if item[1].stream in delivery.streams]
            delivery.offer(
                DecisionBatch(
                    first=segment.first,
                    last=segment.last,
                    positions=[segment.first + offset for offset, _ in found],
                    decisions=[decision for _, decision in found],
                )
            )

    def has_room(self, stream: str) -> bool:
        """Return whether all sinks of a decision stream can take more decisions; if not, no event is decided."""
        return all(
            (delivery.count_waiting() or 0) <= delivery.sink.most_waiting
            for delivery in list(self._deliveries.values())
            if stream in delivery.streams
        )

    def close(self) -> None:
        """End all deliveries; the next process continues."""
        deliveries, self._deliveries = list(self._deliveries.values()), {}
        for delivery in deliveries:
            delivery.stop()


def collect_sinks(counts: Sequence[SinkCounts]) -> Iterator[Metric]:
    """Yield the metrics of deliveries, each with one sample per sink."""
    return collect_counts("skewless_sink", "sink", counts, _COUNTED, _GAUGES)
