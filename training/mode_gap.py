"""How the two time modes differ: what a model would be taught by events that serving did not know of yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.log_parts import Delays, measure_event_delays
from skewless.infra.offline.views import OfflineViews

MOST_ROWS = 50_000
_WORST = 3

_Ends = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class ModeGap:
    """The difference between ``event_time`` and ``knowledge`` for windowed features.

    Args:
        rows: how many rows were compared.
        features: per windowed view and feature, the share of rows where it differs.
        sources: per event source, how late its events became known.
    """

    rows: int
    features: Mapping[str, Mapping[str, float]]
    sources: Mapping[str, Delays]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return it for people: the worst features of each view, and how late events were."""
        text = []
        for view, features in self.features.items():
            worst = sorted(features.items(), key=lambda item: -item[1])[:_WORST]
            shares = ", ".join(f"{name} in {share:.1%}" for name, share in worst if share) or "no feature in any"
            text.append(f"{view}: event time and knowledge differ: {shares} of {self.rows:,} rows")
        return text + [_delay_line(source, delays) for source, delays in self.sources.items()]


def mode_gap(plan: FeaturePlan, views: OfflineViews, entities: pa.Table, logs: _Ends | None = None) -> ModeGap | None:
    """Return how windowed features of some rows differ between the modes; None where a plan has none.

    Of more than ``MOST_ROWS`` rows every n-th is compared.

    Args:
        plan: of one service.
        entities: key columns and ``__t``.
        logs: per view, up to where its log partitions count.
    """
    if not plan.windows or not entities.num_rows:
        return None
    rows = entities.take(pa.array(spread(entities.num_rows)))
    sources = {view.source: measure_event_delays(views.connection, views.log_partitions(view)) for view in plan.windows}
    features = {view.name: _shares(view, views, rows, (logs or {}).get(view.name)) for view in plan.windows}
    return ModeGap(rows=rows.num_rows, features=features, sources=sources)


def spread(n: int, most: int = MOST_ROWS) -> npt.NDArray[np.intp]:
    """Return at most so many of n rows, evenly spread.

    >>> spread(7, 3).tolist()
    [0, 3, 6]
    """
    return np.arange(0, n, -(-n // most) if n else 1)


def _shares(view: WindowView, views: OfflineViews, rows: pa.Table, ends: Mapping[str, int] | None) -> dict[str, float]:
    if ends is None:
        ends = views.log_ends(view)  # of both modes, while events go on coming
    told, happened = (views.read_window(view, rows, mode, ends) for mode in ("knowledge", "event_time"))
    return {column.name: float(_differ(told, happened, column.name).mean()) for column in view.features}


def _differ(left: ViewRead, right: ViewRead, name: str) -> npt.NDArray[np.bool_]:
    nulls = left.nulls[name], right.nulls[name]
    bits = [np.ascontiguousarray(read.values[name]).view(np.int64) for read in (left, right)]
    return np.asarray((nulls[0] != nulls[1]) | (~nulls[0] & (bits[0] != bits[1])), dtype=np.bool_)


def _delay_line(source: str, delays: Delays) -> str:
    if delays.late is None:
        return f"{source}: no event is known to have become known"
    return (
        f"{source}: {delays.late:.1%} of {delays.events:,} events were known more than 10 s after they happened"
        f" (half within {delays.p50_s:.1f} s, 99 in 100 within {delays.p99_s:.1f} s)"
    )
