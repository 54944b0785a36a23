"""What an arm did lately: its counts since the policy began, less those of an earlier look.

All that was counted is judged, and what is recent besides: what goes wrong after an hour of good requests would
otherwise take long to show in the whole.
"""

from __future__ import annotations

from skewless.infra.rollout.vitals import Histogram, Vitals


def since(now: Vitals, before: Vitals) -> Vitals | None:
    """Return what was counted between two looks; None: the counts began anew meanwhile.

    >>> since(Vitals(requests=9, failed=4), Vitals(requests=5, failed=4)).requests
    4
    """
    names = ("requests", "failed", "rows", "missing", "values")
    found = {name: getattr(now, name) - getattr(before, name) for name in names}
    latency, scores = _less(now.latency, before.latency), _less(now.scores, before.scores)
    if min(*found.values(), *latency.counts, *scores.counts, 0) < 0:
        return None
    return Vitals(**found, latency=latency, scores=scores, at_us=now.at_us)


def _less(now: Histogram, before: Histogram) -> Histogram:
    if not before.edges:
        return now
    counts = now.counts or (0,) * len(before.counts)
    return Histogram(before.edges, tuple(a - b for a, b in zip(counts, before.counts, strict=True)))
