"""A decision as sinks deliver it: the facts of its row in the prediction log that receivers need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision.

    Args:
        id: of the prediction; it follows from the event and the decision stream, so a second delivery has it too.
        key: JSON text of the entity's keys: decisions of one key are delivered in the order of the log.
        stream: name of the decision stream.
        model, version: of the score.
        score: the score; for several outputs, the largest.
        scores: all outputs of a model with several; None: it has one.
        source, partition, position: of the event in its log.
        event_us: event time, UTC microseconds.
        decided_us: time for which features were read, UTC microseconds.
        is_late: the event came after its windows had moved on.
        inputs: JSON text of keys and request fields.
        action: of the policy; None: the model has no policy.
        reasons: of the action.
    """

    id: str
    key: str
    stream: str
    model: str
    version: str
    score: float
    scores: tuple[float, ...] | None = None
    source: str
    partition: str
    position: int
    event_us: int
    decided_us: int
    is_late: bool = False
    inputs: str
    action: str | None = None
    reasons: tuple[str, ...] = ()
