"""The report of a parity check: mismatches of the online store with the accepted log, as data and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from skewless.contract.render import count_text
from skewless.infra.models.verdicts.last_verdicts import LastParity

_MAX_EXAMPLES = 3  # per view and cause
_SHOWN = 10


class ParityFault(StrEnum):
    """The kind of an entity's mismatch with the log."""

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
    """One entity whose online value differs from the log.

    Args:
        entity: its key.
        feature: the first feature that differs; None if the mismatch is about all features.
        online, log: the values of that feature.
        positions: the state's last applied position of each log partition; for a row, its own position.
        repairable: whether a repair can replace the value.
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
        """Return a line about it.

        >>> Mismatch(view="v", cause=ParityFault.VALUE, entity={"id": 7}, feature="n", online=3.0, log=2.0).line()
        'v id=7: value: n is 3.0 online, 2.0 in the log'
        """
        keys = " ".join(f"{name}={value!r}" for name, value in self.entity.items())
        parts = [f"{self.feature} is {self.online!r} online, {self.log!r} in the log"] if self.feature else []
        parts += [self.detail] if self.detail else []
        positions = ", ".join(f"{partition} at {position}" for partition, position in self.positions.items())
        parts += [f"applied: {positions}"] if positions else []
        return f"{self.view} {keys}: {self.cause.value}: {'; '.join(parts)}"


@dataclass(kw_only=True)
class ViewParity:
    """The parity of one view.

    Args:
        at_us: time of the reads.
        compared: number of compared entities, mismatches included.
        unavailable: entities that the store could not read, as in predictions.
        left: mismatches after the repair; None without a repair.
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
    def remaining(self) -> list[Mismatch]:
        """Return the current mismatches, after a repair if there was one."""
        return self.mismatches if self.left is None else self.left

    @property
    def by_cause(self) -> dict[str, int]:
        """Return the number of mismatches before a repair, by cause."""
        return _count_by_cause(self.mismatches)

    def verdict(self) -> LastParity:
        """Return the verdict to store."""
        return LastParity(
            view=self.view,
            hash=self.hash,
            at_us=self.at_us,
            compared=self.compared,
            mismatches=len(self.remaining),
            by_cause=_count_by_cause(self.remaining),
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
        """Return a line about it."""
        text = f"{self.view}: {count_text(self.compared, 'entity', 'entities')} compared"
        if self.unavailable:
            text += f", {self.unavailable:,} UNAVAILABLE"
        if not self.mismatches:
            return text + (", all equal, bit for bit" if self.compared else "")
        causes = ", ".join(f"{count:,} {cause}" for cause, count in self.by_cause.items())
        text += f", {count_text(len(self.mismatches), 'MISMATCH', 'MISMATCHES')} ({causes})"
        if self.left is not None:
            text += f"; {len(self.mismatches) - len(self.left):,} repaired, {len(self.left):,} left"
        return text


@dataclass(kw_only=True)
class ParityReport:
    """The parity of some views."""

    views: list[ViewParity]

    @property
    def ok(self) -> bool:
        """Return whether all compared entities now equal the log."""
        return not any(view.remaining for view in self.views)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        mismatches = [item for view in self.views for item in view.mismatches]
        body: dict[str, Any] = {
            "compared": sum(view.compared for view in self.views),
            "unavailable": sum(view.unavailable for view in self.views),
            "mismatches": len(mismatches),
            "by_cause": _count_by_cause(mismatches),
            "views": {view.view: view.as_dict() for view in self.views},
            "examples": [asdict(item) for view in self.views for item in _examples(view.mismatches)],
        }
        if any(view.left is not None for view in self.views):
            remaining = sum(len(view.remaining) for view in self.views)
            body |= {"repaired": len(mismatches) - remaining, "left": remaining}
        return body

    def lines(self) -> list[str]:
        """Return the report as text: a line for each view, examples, and advice."""
        text = [view.line() for view in self.views] or ["the plan has no views"]
        remaining = [item for view in self.views for item in view.remaining]
        shown = [item for view in self.views for item in _examples(view.remaining)]
        text += [f"  {item.line()}" for item in shown[:_SHOWN]]
        for cause in dict.fromkeys(item.cause for item in remaining):
            text.append(f"  {cause.value}: {GLOSS[cause]}")
        return text + [f"  {line}" for line in self._advice(remaining)]

    def _advice(self, remaining: list[Mismatch]) -> Iterator[str]:
        unrepairable = sorted({item.view for item in remaining if not item.repairable})
        repairable = sorted({item.view for item in remaining if item.repairable})
        if repairable:
            yield f"fix: `skewless parity {' '.join(repairable)} --repair` repairs these values from the log"
        if unrepairable:
            fix = "set the correct online store and state folder, or fill an empty store (backfill, materialize)"
            yield f"fix for {', '.join(unrepairable)}: a repair cannot help; {fix}"
        unavailable = [view.view for view in self.views if view.unavailable]
        if unavailable:
            yield f"{', '.join(unavailable)} is unavailable: `skewless stream`, `backfill` or `materialize` fills it"


def _examples(mismatches: list[Mismatch]) -> Iterator[Mismatch]:
    counts: Counter[ParityFault] = Counter()
    for item in mismatches:
        counts[item.cause] += 1
        if counts[item.cause] <= _MAX_EXAMPLES:
            yield item


def _count_by_cause(mismatches: list[Mismatch]) -> dict[str, int]:
    return {cause.value: count for cause, count in Counter(item.cause for item in mismatches).most_common()}
