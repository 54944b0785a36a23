"""Which version of a model answers whom: pure values, and the arm of an entity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Literal

Phase = Literal["champion", "shadow", "canary", "ab"]
Role = Literal["champion", "challenger", "shadow"]
_WHOLE = 2.0**64


@dataclass(frozen=True, kw_only=True)
class TrafficPolicy:
    """How the requests to one model that name no version are shared out.

    Args:
        number: 1 for a model's first policy, one more for each after it.
        phase: ``champion``: it answers all. ``shadow``: it answers all, the challenger is scored besides. ``canary``
            and ``ab``: the challenger answers its share of the entities.
        champion: version.
        challenger: version; None in the phase ``champion``.
        share: of the entities, 0 to 1, that the challenger answers.
        shadows: versions that are scored besides, after the reply, on the same values.
        sticky: join keys or request fields whose values choose the arm.
        salt: what the arms are drawn with; a rollout keeps it, so that who was with the challenger stays there.
        step: of a canary, from 0.
        since_us: when it came into force, microseconds.
        moves: how often the alias ``champion`` had moved by then; who finds it moved no further lets it follow.
        reason: why, in a sentence.
        evidence: what was found, plain JSON values.
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

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrafficPolicy:
        """Build a policy from what ``as_dict`` returned."""
        values = dict(data)
        for name in ("shadows", "sticky"):
            values[name] = tuple(values[name])
        return cls(**values)


def place(salt: str, values: Iterable[object]) -> float:
    """Return where an entity lies between 0 (inclusive) and 1 (exclusive): an arm with share s answers those below s.

    Args:
        values: of the sticky keys, as the row parser returned them.

    >>> 0.0 <= place("r1", [7, "a"]) < 1.0, place("r1", [7, "a"]) == place("r1", [7, "a"])
    (True, True)
    """
    text = salt
    for value in values:
        text += f"\x1f{type(value).__name__}:{value}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / _WHOLE
