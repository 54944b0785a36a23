"""The interface of deciders: a stream worker gives them the events that it has accepted (SEMANTICS 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
from prometheus_client.core import Metric

from skewless.contract.decisions import DecisionStream
from skewless.contract.plan import FeaturePlan
from skewless.contract.window_events import ViewEvents
from skewless.contract.windows.view import EventSource
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.reads.online.port import OnlineStore


@dataclass(kw_only=True)
class DecisionCounts:
    """Counts of one decision stream in one process since it began.

    Args:
        stream: name of the decision stream.
        source: name of the event source, or of the view whose changes are decided.
        decided: events that were decided.
        skipped: events that did not meet the condition, or came late and are skipped.
        late: events that were decided although they came late.
        dead: events that cannot be decided.
        recomputed: windows that were computed from the log, because the states were not those before the event.
        lag: accepted events that are not decided yet; None: unknown.
        trouble: why no event is decided now; None: nothing is wrong.
    """

    stream: str
    source: str
    decided: int = 0
    skipped: int = 0
    late: int = 0
    dead: int = 0
    recomputed: int = 0
    lag: int | None = None
    trouble: str | None = None


class EventDecider(Protocol):
    """Decides the events of one source for all its decision streams; used from the thread of the source's worker.

    An error of a stream is noted in its counts, and stops neither the other streams nor the worker: what is not decided
    stays in the log, and ``catch_up`` decides it later.
    """

    @property
    def counts(self) -> Sequence[DecisionCounts]:
        """The counts of each decision stream; any thread may read them."""
        ...

    def assign(self, partition: str) -> None:
        """Begin to decide a log partition, which another worker may have decided before."""
        ...

    def revoke(self, partition: str) -> None:
        """Forget a log partition, which another worker may decide from now on: nothing more is written for it."""
        ...

    def decide(
        self, partition: str, rows: pa.Table, ensure_logged: Callable[[], None] = lambda: None
    ) -> Mapping[str, ViewEvents]:
        """Decide events that are being appended to a log partition, before they are applied to states.

        Returns the events that count in each view that was read, by the hash of the view.

        Args:
            rows: with consecutive positions; states include no row behind them, and perhaps not all before them.
            ensure_logged: returns when the rows are in the log; no decision is logged before. If it raises, they are
                not, and ``assign`` must be called.

        Raises:
            ConflictError: another worker decides the partition's events, so it owns the partition.
        """
        ...

    def catch_up(self, log: PartitionLog) -> None:
        """Decide some events of a log partition that are not decided yet, if there are any; takes about a second.

        Raises:
            ConflictError: as ``decide``.
        """
        ...

    def close(self) -> None:
        """Record the positions, and close all connections."""
        ...


class DeciderPool(Protocol):
    """Opens the deciders of a worker group, and delivers their decisions; used from one thread at a time."""

    @property
    def counts(self) -> Sequence[DecisionCounts]:
        """The counts of the streams that decide changes of rows; any thread may read them."""
        ...

    def load(self, plan: FeaturePlan, decisions: Sequence[DecisionStream], store: OnlineStore) -> None:
        """Use the decision streams of a newly applied plan, before deciders are opened for it.

        Raises:
            StoreError: the database is unavailable.
        """
        ...

    def open(
        self, plan: FeaturePlan, source: EventSource, decisions: Sequence[DecisionStream], store: OnlineStore
    ) -> EventDecider | None:
        """Return the decider of a source; None: no decision stream reads it.

        Raises:
            StoreError: the database or the store is unavailable.
        """
        ...

    def step(self) -> None:
        """Decide some changes of rows, of the streams that decide them; errors are noted in their counts."""
        ...

    def is_idle(self) -> bool:
        """Return whether no decision waits for a sink that can be reached."""
        ...

    def collect(self, counts: Sequence[DecisionCounts]) -> Iterable[Metric]:
        """Yield the metrics of the decision streams, whose counts are given, and of the sinks."""
        ...

    def close(self) -> None:
        """End the deliveries, after all deciders are closed."""
        ...
