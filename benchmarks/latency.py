"""What a load measured: how long each request took, how many a second, and what the load itself cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.arrivals import Moments

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True, kw_only=True)
class LatencySample:
    """What became of the requests of one load.

    Args:
        latencies: seconds, of those answered with 200, shape ``(n,)``: in a closed loop from sending, in an open one
            from when it was due.
        seconds: wall time of the load.
        cpu_seconds: what the load itself took of them.
        failed: replies with another status.
        late: an open loop's seconds between when a request was due and when it was sent; empty in a closed one.
        refusal: the body of the first reply with another status.
    """

    latencies: Moments
    seconds: float
    cpu_seconds: float
    failed: int
    late: Moments
    refusal: bytes = b""

    @property
    def rate(self) -> float:
        """Return the requests a second that were answered with 200."""
        return len(self.latencies) / self.seconds

    @property
    def answered(self) -> float:
        """Return the share of the requests that were answered with 200."""
        return len(self.latencies) / (len(self.latencies) + self.failed)

    def quantile(self, share: float) -> float:
        """Return the latency in seconds that this share of the requests did not exceed: one that was measured."""
        return quantile(self.latencies, share)

    def facts(self) -> dict[str, float]:
        """Return the rate, quantiles in milliseconds, and the share of a core that the load took."""
        told = {name: self.quantile(share) * 1e3 for name, share in QUANTILES.items()}
        return {"rate": self.rate, **told, "load": self.cpu_seconds / self.seconds}


def quantile(values: Moments, share: float) -> float:
    """Return the smallest of the values that at least this share of them does not exceed.

    >>> quantile(np.arange(1.0, 101.0), 0.99)
    99.0
    """
    return float(np.quantile(values, share, method="inverted_cdf"))
