"""Compares the two time modes of training: event time uses events that serving did not know yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.plain_record import PlainRecord
from skewless.contract.plan import FeaturePlan
from skewless.contract.render import count_text
from skewless.contract.windows.view import WindowView
from skewless.infra.reads.offline.log_parts import Delays, measure_event_delays
from skewless.infra.reads.offline.views import OfflineViews

# Every window of these rows is computed twice, once in each mode.
MAX_ROWS = 50_000
_MOST_FEATURES = 3

_Ends = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class ModeGap(PlainRecord):
    """The difference between ``event_time`` and ``knowledge`` for windowed features.

    Args:
        rows: number of compared rows.
        features: per windowed view and feature, the share of rows where it differs.
        sources: per event source, the delays of its events.
    """

    rows: int
    features: Mapping[str, Mapping[str, float]]
    sources: Mapping[str, Delays]

    def lines(self) -> list[str]:
        """Return lines for people: the worst features of each view, and the delays of events."""
        lines = []
        for view, features in self.features.items():
            largest = sorted(features.items(), key=lambda item: -item[1])[:_MOST_FEATURES]
            shares = ", ".join(f"{name} in {share:.1%}" for name, share in largest if share) or "no feature in any"
            lines.append(f"{view}: events that became known late change {shares} of {count_text(self.rows, 'row')}")
        return lines + [_delay_line(source, delays) for source, delays in self.sources.items()]


def measure_mode_gap(
    plan: FeaturePlan, views: OfflineViews, entities: pa.Table, logs: _Ends | None = None
) -> ModeGap | None:
    """Return how the windowed features of some rows differ between the modes; None without windowed features.

    If there are more than ``MAX_ROWS`` rows, every n-th is compared.

    Args:
        plan: plan of one service.
        entities: key columns and ``__t``.
        logs: per view, the end positions of its log partitions.
    """
    if not plan.windows or not entities.num_rows:
        return None
    rows = entities.take(pa.array(spread_indices(entities.num_rows)))
    sources = {view.source: measure_event_delays(views.connection, views.log_partitions(view)) for view in plan.windows}
    features = {view.name: _different_shares(view, views, rows, (logs or {}).get(view.name)) for view in plan.windows}
    return ModeGap(rows=rows.num_rows, features=features, sources=sources)


def spread_indices(n: int, most: int = MAX_ROWS) -> npt.NDArray[np.intp]:
    """Return evenly spread indices of at most ``most`` of n rows.

    >>> spread_indices(7, 3).tolist()
    [0, 3, 6]
    """
    return np.arange(0, n, -(-n // most) if n else 1)


def _different_shares(
    view: WindowView, views: OfflineViews, rows: pa.Table, ends: Mapping[str, int] | None
) -> dict[str, float]:
    if ends is None:
        ends = views.log_ends(view)  # the same ends for both modes, because new events keep arriving
    known, by_event_time = (views.read_window(view, rows, mode, ends) for mode in ("knowledge", "event_time"))
    shares = {}
    for name in (column.name for column in view.features):
        nulls = known.nulls[name], by_event_time.nulls[name]
        # Bits, because NaN differs from itself as a number, and -0.0 equals 0.0.
        bits = [np.ascontiguousarray(read.values[name]).view(np.int64) for read in (known, by_event_time)]
        shares[name] = float(((nulls[0] != nulls[1]) | (~nulls[0] & (bits[0] != bits[1]))).mean())
    return shares


def _delay_line(source: str, delays: Delays) -> str:
    if delays.late is None:
        return f"{source}: no event has a known time"
    return (
        f"{source}: {delays.late:.1%} of {count_text(delays.events, 'event')} became known more than 10 s"
        " after their event time"
        f" (p50 {delays.p50_s:.1f} s, p99 {delays.p99_s:.1f} s)"
    )
