"""The dead letters of a project: decisions that a sink refused for good, and events that could not be decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skewless.contract.names import check_known
from skewless.contract.plain_record import PlainRecord
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless.operations.audited import audited
from skewless.operations.data.decision_port import DeadLetter
from skewless.workspace import Workspace
from skewless_decisions.dead_letters import SentLetter, send_letters
from skewless_decisions.decision_log import DecisionLog
from skewless_decisions.deliveries import list_sinks
from skewless_decisions.sink_adapters import SinkContext
from skewless_decisions.sink_positions import SinkPositions


@dataclass(frozen=True, kw_only=True)
class LetterList(PlainRecord):
    """Dead letters of sinks and of decision streams.

    Args:
        letters: of each sink and stream the latest, latest first.
        total: number of all that are kept: at most 1,000 of each sink and stream.
    """

    letters: Sequence[DeadLetter]
    total: int


@dataclass(frozen=True, kw_only=True)
class LetterReport(PlainRecord):
    """The dead letters of a sink that were sent again.

    Args:
        name: of the sink.
        stored, refused, missing, waiting: their numbers by state.
        letters: in the order of the log.
    """

    name: str
    dry_run: bool
    stored: int
    refused: int
    missing: int
    waiting: int
    letters: Sequence[SentLetter]


@dataclass(frozen=True)
class DeadLetters:
    """The dead letters of a project: ``skewless letters``."""

    project: Workspace

    def list(self, name: str | None = None, *, limit: int = 50) -> LetterList:
        """Return the latest dead letters of each sink and decision stream of the plan.

        Args:
            name: of a sink or a decision stream; None: all.
            limit: largest number for each.

        Raises:
            RequestError: the plan has no such sink or stream.
            StoreError: the database is unavailable.
        """
        state, decisions = self.project.state, self.project.applied.decisions
        sinks, streams = sorted({sink.name for sink in list_sinks(decisions)}), [stream.name for stream in decisions]
        if name is not None:
            check_known("sink or decision stream", name, [*sinks, *streams])
            sinks, streams = ([each for each in names if each == name] for names in (sinks, streams))
        positions, log = SinkPositions(state.database), DecisionLog(state)
        letters = [
            DeadLetter(
                kind="sink",
                name=sink,
                id=letter.id,
                partition=PREDICTIONS,
                position=letter.position,
                reason=letter.reason,
            )
            for sink in sinks
            for letter in positions.dead_letters(sink, limit)
        ]
        letters += [
            DeadLetter(
                kind="stream", name=stream, id=None, partition=event.partition, position=event.seq, reason=event.reason
            )
            for stream in streams
            for event in log.list_dead(stream, limit)
        ]
        total = sum(map(positions.count_letters, sinks)) + sum(map(log.count_dead, streams))
        return LetterList(letters=letters, total=total)

    @audited("letters.send")
    def send(self, name: str, *, ids: Sequence[str] = (), dry_run: bool = False) -> LetterReport:
        """Send the dead letters of a sink again, with the ids and the bytes of their first delivery.

        Args:
            name: of the sink.
            ids: of decisions; empty: all dead letters of the sink.
            dry_run: send nothing; say which the log still has.

        Raises:
            RequestError: the plan has no such sink, or it has no dead letter with an id.
            DefinitionError: a secret of the sink is missing in this process.
            StoreError: the sink or the database is unavailable; what was not stored stays a dead letter.
            ConflictError: another process sends them.
        """
        project = self.project
        sinks = {sink.name: sink for sink in list_sinks(project.applied.decisions)}
        check_known("sink", name, sinks)
        known = {letter.id for letter in SinkPositions(project.state.database).dead_letters(name)} if ids else set()
        for each in ids:
            check_known(f"dead letter of sink {name!r}", each, known)
        context = SinkContext(
            state=project.state,
            settings=project.settings,
            redis_url=lambda: project.streams.stream_url,
            clock=project.clock,
        )
        letters = send_letters(context, sinks[name], ids, dry_run=dry_run)
        states = ("stored", "refused", "missing", "waiting")
        counts = {state: sum(letter.state == state for letter in letters) for state in states}
        return LetterReport(name=name, dry_run=dry_run, letters=letters, **counts)
