"""The traffic policy of a model: which version answers which share of the entities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from skewless.contract.plain_record import PlainRecord

Phase = Literal["champion", "shadow", "canary", "ab"]
Role = Literal["champion", "challenger", "shadow"]
_HASH_RANGE = 2.0**64


@dataclass(frozen=True, kw_only=True)
class TrafficPolicy(PlainRecord):
    """How requests to a model are distributed over its versions, if they do not name a version.

    Args:
        number: 1 for a model's first policy, one more for each after it.
        phase: ``champion``: it answers all requests. ``shadow``: the same, and the challenger is scored, too.
            ``canary`` and ``ab``: the challenger answers its share of the entities.
        champion: its version.
        challenger: its version; None in the phase ``champion``.
        share: share of the entities, 0 to 1, that the challenger answers.
        shadows: versions that are scored after the reply on the same values.
        sticky: join keys or request fields whose values choose the arm.
        salt: seed of the assignment to arms; constant during a rollout, so that an entity stays with the challenger.
        step: step of a canary, from 0.
        since_us: start of the policy, UTC microseconds.
        moves: how often the alias ``champion`` had moved when the policy was written; if it has not moved since, the
            alias follows the policy.
        reason: the reason for the policy, in a sentence.
        evidence: the measurements that support the reason, plain JSON values.
    """

    number: int
    phase: Phase
    champion: str
    challenger: str | None = None
    share: float = 0.0
    shadows: tuple[str, ...] = ()
    sticky: tuple[str, ...] = ()
    salt: str = ""
    step: int = 0
    since_us: int = 0
    moves: int = 0
    reason: str = ""
    evidence: Mapping[str, Any] | None = None


def entity_position(salt: str, values: Iterable[object]) -> float:
    """Return the position of an entity in [0, 1): an arm with share s answers the entities below s.

    Args:
        values: values of the sticky keys, from the row parser.

    >>> 0.0 <= entity_position("r1", [7, "a"]) < 1.0, entity_position("r1", [7, "a"]) == entity_position("r1", [7, "a"])
    (True, True)
    """
    text = salt
    for value in values:
        # With the type and a separator, 1 and "1" differ, and so do (1, 23) and (12, 3).
        text += f"\x1f{type(value).__name__}:{value}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / _HASH_RANGE
