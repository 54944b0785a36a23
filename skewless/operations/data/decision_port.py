"""The port of the plug-in that decides events and delivers the decisions: entry point ``decisions`` of its group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, cast

from skewless.contract.plain_record import JSON_ONLY, PlainRecord
from skewless.infra.ingest.streams.decider import DeciderPool
from skewless.infra.platform.host.plugins import find_plugin, require_plugin

if TYPE_CHECKING:
    from skewless.workspace import Workspace

SINK_COUNTS = "sinks"  # folder of the counts by day: of each sink, the decisions that it stored and refused


@dataclass(frozen=True, kw_only=True)
class DecisionStatus(PlainRecord):
    """A decision stream as the database shows it.

    Args:
        source: name of its event source, or of the view whose changes it decides.
        decided, skipped, late, dead: number of accepted events that were decided, skipped by the condition or as late,
            decided as late, or could not be decided.
        lag: events of the log that are not decided yet, at most: positions of skipped events are written late.
    """

    stream: str
    source: str
    model: str
    decided: int
    skipped: int
    late: int
    dead: int
    lag: int


@dataclass(frozen=True, kw_only=True)
class SinkStatus(PlainRecord):
    """A sink as its project's database shows it.

    Args:
        name, kind: of the sink.
        streams: names of its decision streams.
        waiting: rows of the prediction log that it has not confirmed.
        lag_s: age of the oldest of these rows in seconds; None: none waits.
        delivered: decisions that it has confirmed, ever, dead letters that were sent again among them.
        refused: decisions that it has refused, ever, and not stored since.
        letters: dead letters that are kept: `skewless letters` lists them and sends them again.
        process: the process that delivers; None: no process does.
        error: of the last attempt to deliver, without secrets; None: it succeeded, or there was none.
        since_us: time of the first failed attempt after the last delivery, UTC microseconds; None: without an error.
        retries: failed attempts since then; None: without an error.
    """

    name: str
    kind: str
    streams: tuple[str, ...] = field(metadata=JSON_ONLY)
    waiting: int
    lag_s: float | None
    delivered: int
    refused: int
    letters: int
    process: str | None
    since_us: int | None
    retries: int | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class DeadLetter(PlainRecord):
    """A decision that a sink refused for good, or an event that its decision stream can never decide.

    Args:
        kind, name: of the sink or the decision stream.
        id: of the decision; None: an event has none.
        partition, position: of the decision in the prediction log, or of the event in the accepted log.
        reason: in a clause, without values.
    """

    kind: Literal["sink", "stream"]
    name: str
    id: str | None
    partition: str
    position: int
    reason: str


class DecisionPort(Protocol):
    """The questions and orders of the core about decisions and their sinks.

    Every method reads the applied plan of the project and its database, and raises StoreError if that is unavailable.
    But for ``open_deciders`` and ``forget_streams`` they change nothing, start nothing, and keep no connection.
    """

    def open_deciders(self, project: Workspace) -> DeciderPool:
        """Return the deciders of one process; the caller, the worker group, loads their plans and closes them."""
        ...

    def forget_streams(self, project: Workspace) -> None:
        """Delete the positions of all decision streams, so that they are new when they are added again.

        A worker calls it if the plan has none; a pool does so itself for the streams that its plan lacks.
        """
        ...

    def read_streams(self, project: Workspace) -> list[DecisionStatus]:
        """Return the status of each decision stream of the plan."""
        ...

    def read_sinks(self, project: Workspace) -> list[SinkStatus]:
        """Return the status of each sink of the plan."""
        ...

    def first_undelivered(self, project: Workspace) -> int | None:
        """Return the first position of the prediction log that a sink of the plan has not confirmed; None: none waits.

        Housekeeping deletes no prediction from there on.
        """
        ...

    def list_refused(self, project: Workspace, sink: str, most: int) -> Sequence[DeadLetter]:
        """Return the latest dead letters of a sink, also of one that the plan does not have any more; latest first."""
        ...


def find_decisions() -> DecisionPort | None:
    """Return the installed port; None: the plug-in is not installed.

    Raises:
        DefinitionError: it cannot be imported.
    """
    return cast("DecisionPort | None", find_plugin("skewless.deciders", "decisions"))


def require_decisions() -> DecisionPort:
    """Return the installed port, for work that must not continue without it.

    Raises:
        DefinitionError: the plug-in is not installed, or cannot be imported.
    """
    return cast("DecisionPort", require_plugin("skewless.deciders", "decisions"))
