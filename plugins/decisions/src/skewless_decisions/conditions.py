"""The condition of a decision stream: a function of the event's fields, or a window feature that crosses a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from skewless.contract.columns import Transform
from skewless.contract.decision_inputs import ConditionRunner, find_crossings
from skewless.contract.decisions import Crosses, DecisionStream
from skewless.contract.plan import FeaturePlan
from skewless.contract.status import BoolArray
from skewless.contract.window_events import plain_column
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.view import EventSource
from skewless.infra.log.log_columns import EVENT
from skewless.infra.records.predictions.record import DecidedEvents
from skewless_decisions.decision_log import DeadEvent
from skewless_decisions.events import AcceptedEvents
from skewless_decisions.pending_events import PendingEvents
from skewless_decisions.reads import DecisionReads


class Condition(Protocol):
    """Tells which events a decision stream decides."""

    def find_matches(
        self, events: AcceptedEvents, times: DecidedEvents, pending: PendingEvents
    ) -> tuple[BoolArray, Sequence[DeadEvent]]:
        """Return which events meet the condition, shape ``(n,)``, and the events on which it fails.

        Raises:
            StoreError: a feature or row cannot be read.
        """
        ...


class StreamCondition:
    """The condition on the events of a source; see ``Condition``.

    Args:
        reads: for a condition on a feature.
    """

    def __init__(self, stream: DecisionStream, source: EventSource, plan: FeaturePlan, reads: DecisionReads) -> None:
        self._when, self._source, self._reads = stream.when, source, reads
        self._runner = ConditionRunner(stream.when, source) if isinstance(stream.when, Transform) else None
        self._view = plan.window(stream.when.view) if isinstance(stream.when, Crosses) else None

    def find_matches(
        self, events: AcceptedEvents, times: DecidedEvents, pending: PendingEvents
    ) -> tuple[BoolArray, Sequence[DeadEvent]]:
        """Return which events meet the condition; see ``Condition``."""
        if not len(events):
            return np.zeros(0, dtype=np.bool_), ()
        if self._runner is not None:
            return self._run(self._runner, events, pending)
        if isinstance(self._when, Crosses) and self._view is not None:
            # A millisecond later, so that events of its own millisecond count on both sides.
            t = times.t + MILLISECOND
            before, after = self._reads.read_beside(self._view, self._when.name, events, t, pending)
            return find_crossings(self._when, before, after), ()
        return np.ones(len(events), dtype=np.bool_), ()

    def _run(
        self, runner: ConditionRunner, events: AcceptedEvents, pending: PendingEvents
    ) -> tuple[BoolArray, Sequence[DeadEvent]]:
        names = [ref.name for ref in runner.transform.inputs]
        columns = {
            name: plain_column(events.rows[EVENT if name == self._source.event_column else name].combine_chunks())
            for name in names
        }
        try:
            return runner.find_matches(columns), ()
        except Exception:  # noqa: BLE001 - a user's function may raise any exception: each event alone, then
            matches, dead = np.zeros(len(events), dtype=np.bool_), []
        for i in range(len(events)):
            try:
                matches[i] = runner.find_matches({name: column[i : i + 1] for name, column in columns.items()})[0]
            except Exception as error:  # noqa: BLE001 - as above
                reason = f"the condition fails with {type(error).__name__}"
                dead.append(DeadEvent(partition=pending.partition, seq=int(events.seq[i]), reason=reason))
        return matches, dead
