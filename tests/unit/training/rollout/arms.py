"""Arms as servers count them."""

from __future__ import annotations

import numpy as np

from skewless.infra.models.rollout.counts import LATENCY_EDGES, Histogram, RolloutCounts, score_edges


def counted(values: np.ndarray, edges: tuple[float, ...]) -> Histogram:
    places = np.searchsorted(edges, values)
    return Histogram(edges, tuple(np.bincount(places, minlength=len(edges) + 1).tolist()))


def arm(
    requests: int = 1_000,
    *,
    failed: int = 0,
    seconds: float = 0.004,
    odds: float = -1.0,
    missing: float = 0.1,
    seed: int = 0,
) -> RolloutCounts:
    """An arm with one row a request, latencies about ``seconds``, and scores about the log odds."""
    chance = np.random.default_rng(seed)
    answered = requests - failed
    scores = 1 / (1 + np.exp(-chance.normal(odds, 1.0, answered)))
    return RolloutCounts(
        requests=requests,
        failed=failed,
        rows=answered,
        latency=counted(seconds * chance.lognormal(0.0, 0.4, answered), LATENCY_EDGES),
        scores=counted(scores, score_edges()),
        missing=round(missing * answered * 20),
        values=answered * 20,
        at_us=1,
    )
