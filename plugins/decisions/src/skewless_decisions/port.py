"""Implements the port ``DecisionPort`` of the core; it imports what decides only where that is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from skewless.contract.decisions import Changes
from skewless.infra.definitions.plans.applied_plan import read_valid
from skewless.infra.log.catalog import log_ends
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless.operations.data.decision_port import DeadLetter, DecisionStatus, SinkStatus
from skewless.workspace import Workspace
from skewless_decisions.decision_log import DecisionLog
from skewless_decisions.sink_positions import SinkPositions

if TYPE_CHECKING:
    from skewless_decisions.opening import Deciders


def open_deciders(project: Workspace) -> Deciders:
    """Return the deciders of one process; see ``DecisionPort``."""
    from skewless_decisions.opening import Deciders  # noqa: PLC0415 - a worker without streams, and a status, need none

    return Deciders(streams=project.streams, store=project.store)


def forget_streams(project: Workspace) -> None:
    """Delete the positions of all decision streams; see ``DecisionPort``."""
    DecisionLog(project.state).keep_only(())


def read_streams(project: Workspace) -> list[DecisionStatus]:
    """Return the status of each decision stream; see ``DecisionPort``."""
    applied, log = read_valid(project.state), DecisionLog(project.state)
    if applied is None:
        return []
    statuses = []
    for stream in applied.decisions:
        if isinstance(stream.when, Changes):
            partition = applied.plan.view(stream.when.view).partition
            ends: Mapping[str, int] = {partition: PartitionLog(project.state, partition).next_seq() - 1}
        else:
            ends = log_ends(project.state, stream.source or "")
        statuses.append(log.read_status(stream, ends))
    return statuses


def read_sinks(project: Workspace) -> list[SinkStatus]:
    """Return the status of each sink; see ``DecisionPort``."""
    from skewless_decisions import deliveries  # noqa: PLC0415 - imports the clients of sinks

    applied = read_valid(project.state)
    return [] if applied is None else deliveries.read_sinks(project.state, applied.decisions, project.clock.now_us())


def first_undelivered(project: Workspace) -> int | None:
    """Return the first position that a sink has not confirmed; see ``DecisionPort``."""
    applied, positions = read_valid(project.state), SinkPositions(project.state.database)
    sinks = {sink.name for stream in applied.decisions for sink in stream.sinks} if applied is not None else ()
    found = [positions.read(sink) for sink in sinks]
    return min((position.next for position in found if position is not None), default=None)


def list_refused(project: Workspace, sink: str, most: int) -> Sequence[DeadLetter]:
    """Return the latest dead letters of a sink; see ``DecisionPort``."""
    return [
        DeadLetter(
            kind="sink",
            name=sink,
            id=letter.id,
            partition=PREDICTIONS,
            position=letter.position,
            reason=letter.reason,
        )
        for letter in SinkPositions(project.state.database).dead_letters(sink, most)
    ]
