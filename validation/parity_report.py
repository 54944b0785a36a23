"""The verdict of parity: what the online store holds against what the accepted log says, for programs and people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from skewless.infra.verdicts.last_verdicts import LastParity

_MOST_EXAMPLES = 3  # of a view and cause
_SHOWN = 10


class ParityFault(StrEnum):
    """Why an entity's online state is not what the log says."""

    VALUE = "value"
    LOST = "lost"
    ABSENT = "absent"
    AHEAD = "ahead"
    DAMAGED = "damaged"
    STALE_ROW = "stale_row"
    LOST_ROW = "lost_row"


GLOSS: Mapping[ParityFault, str] = {
    ParityFault.VALUE: "a feature has other bits than the log gives for the same positions",
    ParityFault.LOST: "an event that was applied is not in the state",
    ParityFault.ABSENT: "events were applied, but the state is missing",
    ParityFault.AHEAD: "it has positions that the log does not have: another log filled it",
    ParityFault.DAMAGED: "it cannot be read",
    ParityFault.STALE_ROW: "an older row replaced a newer row",
    ParityFault.LOST_ROW: "a row was applied, but it is missing",
}


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One entity that is not what the log says.

    Args:
        entity: its key.
        feature: the first that differs; None where it is about all of them.
        online, log: that feature on both sides.
        positions: up to where the state says that each log partition was applied; of a row, its own.
        repairable: whether a repair may put the log's answer in its place.
    """

    view: str
    cause: ParityFault
    entity: Mapping[str, object]
    feature: str | None = None
    online: object = None
    log: object = None
    positions: Mapping[str, int] = field(default_factory=dict)
    detail: str = ""
    repairable: bool = True

    def line(self) -> str:
        """Return it for people.

        >>> Mismatch(view="v", cause=ParityFault.VALUE, entity={"id": 7}, feature="n", online=3.0, log=2.0).line()
        'v id=7: value: n is 3.0 online, 2.0 in the log'
        """
        keys = " ".join(f"{name}={value!r}" for name, value in self.entity.items())
        said = [f"{self.feature} is {self.online!r} online, {self.log!r} in the log"] if self.feature else []
        said += [self.detail] if self.detail else []
        where = ", ".join(f"{partition} at {position}" for partition, position in self.positions.items())
        said += [f"applied: {where}"] if where else []
        return f"{self.view} {keys}: {self.cause.value}: {'; '.join(said)}"


@dataclass(kw_only=True)
class ViewParity:
    """What came of one view.

    Args:
        at_us: when its states were read.
        compared: entities that were compared; the mismatches are among them.
        unavailable: entities that the store could not answer for, as predictions would have said too.
        left: mismatches after the repair; None where nothing was repaired.
    """

    view: str
    hash: str
    kind: Literal["windowed", "batch"]
    at_us: int
    compared: int
    unavailable: int
    mismatches: list[Mismatch] = field(default_factory=list)
    left: list[Mismatch] | None = None

    @property
    def standing(self) -> list[Mismatch]:
        """Return the mismatches that are there now."""
        return self.mismatches if self.left is None else self.left

    @property
    def by_cause(self) -> dict[str, int]:
        """Return how many mismatches were found, by cause."""
        return _by_cause(self.mismatches)

    def verdict(self) -> LastParity:
        """Return what is kept of it."""
        return LastParity(
            view=self.view,
            hash=self.hash,
            at_us=self.at_us,
            compared=self.compared,
            mismatches=len(self.standing),
            by_cause=_by_cause(self.standing),
            unavailable=self.unavailable,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        body: dict[str, Any] = {
            "kind": self.kind,
            "compared": self.compared,
            "unavailable": self.unavailable,
            "mismatches": len(self.mismatches),
            "by_cause": self.by_cause,
        }
        if self.left is not None:
            body |= {"repaired": len(self.mismatches) - len(self.left), "left": len(self.left)}
        return body

    def line(self) -> str:
        """Return it for people."""
        text = f"{self.view}: {self.compared:,} entities compared"
        if self.unavailable:
            text += f", {self.unavailable:,} UNAVAILABLE"
        if not self.mismatches:
            return text + (", every one equal, bit for bit" if self.compared else "")
        causes = ", ".join(f"{count:,} {cause}" for cause, count in self.by_cause.items())
        text += f", {len(self.mismatches):,} MISMATCHES ({causes})"
        if self.left is not None:
            text += f"; {len(self.mismatches) - len(self.left):,} repaired, {len(self.left):,} left"
        return text


@dataclass(kw_only=True)
class ParityReport:
    """The verdict on some views."""

    views: list[ViewParity]

    @property
    def ok(self) -> bool:
        """Say whether all that was compared is now what the log says."""
        return not any(view.standing for view in self.views)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        found = [item for view in self.views for item in view.mismatches]
        body: dict[str, Any] = {
            "compared": sum(view.compared for view in self.views),
            "unavailable": sum(view.unavailable for view in self.views),
            "mismatches": len(found),
            "by_cause": _by_cause(found),
            "views": {view.view: view.as_dict() for view in self.views},
            "examples": [asdict(item) for view in self.views for item in _examples(view.mismatches)],
        }
        if any(view.left is not None for view in self.views):
            left = sum(len(view.standing) for view in self.views)
            body |= {"repaired": len(found) - left, "left": left}
        return body

    def lines(self) -> list[str]:
        """Return the verdict for people: a line for each view, examples, and what to do."""
        text = [view.line() for view in self.views] or ["the plan has no view"]
        standing = [item for view in self.views for item in view.standing]
        shown = [item for view in self.views for item in _examples(view.standing)]
        text += [f"  {item.line()}" for item in shown[:_SHOWN]]
        for cause in dict.fromkeys(item.cause for item in standing):
            text.append(f"  {cause.value}: {GLOSS[cause]}")
        return text + [f"  {line}" for line in self._advice(standing)]

    def _advice(self, standing: list[Mismatch]) -> Iterator[str]:
        hopeless = sorted({item.view for item in standing if not item.repairable})
        able = sorted({item.view for item in standing if item.repairable})
        if able:
            yield f"what to do: `skewless parity {' '.join(able)} --repair` puts the log's answer in their place"
        if hopeless:
            fix = "point at the right online store and state folder, or fill an empty one (backfill, materialize)"
            yield f"what to do about {', '.join(hopeless)}: a repair would not help; {fix}"
        waiting = [view.view for view in self.views if view.unavailable]
        if waiting:
            yield f"{', '.join(waiting)} cannot answer: `skewless stream`, `backfill` or `materialize` fills it"


def _examples(found: list[Mismatch]) -> Iterator[Mismatch]:
    seen: Counter[ParityFault] = Counter()
    for item in found:
        seen[item.cause] += 1
        if seen[item.cause] <= _MOST_EXAMPLES:
            yield item


def _by_cause(found: list[Mismatch]) -> dict[str, int]:
    return {cause.value: count for cause, count in Counter(item.cause for item in found).most_common()}
