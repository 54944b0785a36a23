"""Served against training (SEMANTICS 7.2): reported, never failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from skewless.contract.rows import ViewRead
from skewless.contract.status import BoolArray
from skewless.infra.offline.views import OfflineViews
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.reader import Logged
from skewless.validation.bits import equal_bits
from skewless.validation.entities import entity_table
from skewless.validation.rebuilt import Rebuilt

Mode = Literal["knowledge", "event_time"]
_MILLISECOND = 1_000
Reason = Literal["in_flight", "cached", "late", "corrected"]


@dataclass(kw_only=True)
class TrainingGap:
    """How training in one time mode would differ from what was served.

    Args:
        rows: predictions compared: all but those that were asked as of another time.
        different: predictions whose vector differs.
        reasons: reads that differ, by view and reason: ``in_flight`` (the run had not ended at t), ``cached`` (a
            feature cache held what stood before), ``late`` (training uses a row that came later), ``corrected``
            (the same with equal event time).
    """

    rows: int = 0
    different: int = 0
    reasons: dict[str, Counter[Reason]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return plain values."""
        reasons = {view: dict(counts) for view, counts in self.reasons.items() if counts}
        return {"rows": self.rows, "different": self.different, "reasons": reasons}

    def why(self) -> str:
        """Return the reasons for people, or nothing.

        >>> TrainingGap(reasons={"weather": Counter({"late": 3})}).why()
        '; weather: 3 late'
        """
        parts = [
            f"; {view}: " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
            for view, counts in self.reasons.items()
            if counts
        ]
        return "".join(parts)


def add_gap(
    gap: TrainingGap, mode: Mode, model: ServedModel, views: OfflineViews, logged: Logged, rebuilt: Rebuilt
) -> None:
    """Compare a piece with what training in a time mode would join, and add it up."""
    reads = {
        view.name: views.read_view(view, entity_table(view, rebuilt.ask, logged.t), mode) for view in model.plan.views
    }
    reads |= {
        view.name: views.read_window(view, entity_table(view, rebuilt.ask, logged.t), mode)
        for view in model.plan.windows
    }
    trained = model.assembler.assemble(logged.t, reads, rebuilt.ask.fields).matrix
    asked_now = logged.asked_at // _MILLISECOND * _MILLISECOND == logged.t
    gap.rows += int(asked_now.sum())
    gap.different += int((asked_now & (~equal_bits(trained, rebuilt.matrix)).any(axis=1)).sum())
    for view, read in reads.items():
        reasons = gap.reasons.setdefault(view, Counter())
        for reason, rows in _reasons(read, rebuilt.reads[view], mode, logged.read_start < logged.t).items():
            if (rows & asked_now).any():
                reasons[reason] += int((rows & asked_now).sum())


def _reasons(trained: ViewRead, served: ViewRead, mode: Mode, cached: BoolArray) -> dict[Reason, BoolArray]:
    if trained.block is not None and served.block is not None:
        # Windows come from many rows: any event that one side knows and the other does not.
        changed = np.asarray((~equal_bits(trained.block, served.block)).any(axis=1), dtype=np.bool_)
        return _not_known(changed, cached) if mode == "knowledge" else {"late": changed}
    other = trained.versions.seq != served.versions.seq
    if mode == "knowledge":
        return _not_known(other, cached)
    same_event = other & (trained.versions.event_ts == served.versions.event_ts)
    return {"corrected": same_event, "late": np.asarray(other & ~same_event, dtype=np.bool_)}


def _not_known(other: BoolArray, cached: BoolArray) -> dict[Reason, BoolArray]:
    return {"in_flight": other & ~cached, "cached": other & cached}
