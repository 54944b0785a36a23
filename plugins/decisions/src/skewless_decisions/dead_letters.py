"""Sends dead letters again: decisions that a sink refused for good, after its receiver or its declaration changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from skewless.contract.errors import ConflictError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.sinks import Sink
from skewless.infra.log.daily_counts import DailyCounts, RowCounts
from skewless.infra.platform.storage.leases import Leases
from skewless.operations.data.decision_port import SINK_COUNTS
from skewless_decisions.decision import LoggedDecision
from skewless_decisions.outbox import DecisionBatch, Outbox
from skewless_decisions.sink_adapters import SinkContext, open_delivery
from skewless_decisions.sink_positions import Refusal, SinkPositions

LetterState = Literal["stored", "refused", "missing", "waiting"]
_GONE = "the prediction log does not have the decision any more"


@dataclass(frozen=True, kw_only=True)
class SentLetter(PlainRecord):
    """A dead letter that was sent again, or in a dry run would be.

    Args:
        id: of the decision.
        position: in the prediction log.
        state: ``stored``: by the sink, so it is not a dead letter any more; ``refused``: again; ``missing``: the log
            does not have the decision any more; ``waiting``: a dry run would send it.
        reason: why it is a dead letter; None: it is not one any more.
    """

    id: str
    position: int
    state: LetterState
    reason: str | None


def send_letters(
    context: SinkContext, sink: Sink, ids: Collection[str] = (), *, dry_run: bool = False
) -> list[SentLetter]:
    """Send the dead letters of a sink again, in the order of the log; return them, as they are afterwards.

    They have the ids and the bytes of their first delivery. Other decisions are delivered meanwhile.

    Args:
        ids: of decisions; empty: all dead letters of the sink.

    Raises:
        ConflictError: another process sends them, or their messages would have another schema than before.
        DefinitionError: a secret of the sink is missing in this process.
        StoreError: the sink is unavailable; what it has not stored stays a dead letter.
    """
    leases = Leases(context.state.database)
    if dry_run:
        return _send(context, sink, ids, check=None)
    with leases.try_hold(f"dead letters of sink {sink.name}") as lease:
        if lease is None:
            raise ConflictError(f"sink {sink.name!r}", "gets its dead letters from another process", fix="wait for it")
        held = lease
        return _send(context, sink, ids, check=lambda: leases.check(held))


def _send(context: SinkContext, sink: Sink, ids: Collection[str], check: Callable[[], None] | None) -> list[SentLetter]:
    """Send letters again; ``check`` is the fence of each write, None only shows what would be sent."""
    positions = SinkPositions(context.state.database)
    letters = {each.id: each for each in positions.dead_letters(sink.name) if not ids or each.id in ids}
    if not letters:
        return []
    outbox = Outbox(context.state, sink.name, streams=None, check=lambda: _refuse_write(sink))
    found = outbox.find(letters.values())
    sent = [_describe(letter, "missing", _GONE) for letter in letters.values() if letter.id not in found]
    waiting = [letters[name] for name in found]
    if check is None or not waiting:
        sent += [_describe(letter, "waiting", letter.reason) for letter in waiting]
        return sorted(sent, key=lambda letter: letter.position)
    counts = DailyCounts(context.state.database)
    with closing(open_delivery(context, sink, outbox)) as adapter:
        for start in range(0, len(waiting), sink.batch):
            part = waiting[start : start + sink.batch]
            refusals = adapter.send(_batch(part, found))
            positions.settle_letters(sink.name, [each.id for each in part], refusals, check)
            stored = RowCounts(accepted=len(part) - len(refusals))
            counts.add(f"{SINK_COUNTS}/{sink.name}", context.clock.now_us(), stored)
            reasons = {refusal.id: refusal.reason for refusal in refusals}
            for letter in part:
                state: LetterState = "refused" if letter.id in reasons else "stored"
                sent.append(_describe(letter, state, reasons.get(letter.id)))
    return sorted(sent, key=lambda letter: letter.position)


def _batch(letters: Sequence[Refusal], found: Mapping[str, LoggedDecision]) -> DecisionBatch:
    positions = [letter.position for letter in letters]
    decisions = [found[letter.id] for letter in letters]
    return DecisionBatch(first=positions[0], last=positions[-1], positions=positions, decisions=decisions)


def _describe(letter: Refusal, state: LetterState, reason: str | None) -> SentLetter:
    return SentLetter(id=letter.id, position=letter.position, state=state, reason=reason)


def _refuse_write(sink: Sink) -> None:
    """Let the process with the sink's lease alone write its position and its facts."""
    raise ConflictError(
        f"sink {sink.name!r}",
        "has no registered schema of its present format",
        fix="let `skewless stream` deliver a decision first",
    )
