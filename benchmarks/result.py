"""One measured comparison, and its judgement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Result:
    """Ours against a peer, measured in turn in one run.

    Args:
        name: ``"<work>: <what>"``; the work is the module that measured it.
        value: median of ours.
        unit: less is better, but of rates (``.../s``) more.
        against: the peer's name, with what it was measured as.
        ratio: ours over the peer's, the median over the rounds; None where there is no peer.
        target: the ratio to reach, if there is one: at most for what should be small, at least for rates.
    """

    name: str
    value: float
    unit: str
    against: str
    ratio: float | None
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Say whether the target was reached; None where there is none.

        >>> Result(name="a: b", value=2.0, unit="s", against="peer", ratio=0.04, target=0.05).met
        True
        >>> Result(name="a: b", value=2.0, unit="rows/s", against="peer", ratio=0.3, target=0.4).met
        False
        """
        if self.target is None or self.ratio is None:
            return None
        return self.ratio >= self.target if more_is_better(self.unit) else self.ratio <= self.target

    def as_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {**asdict(self), "met": self.met}


def more_is_better(unit: str) -> bool:
    """Say whether a quantity of this unit should be large.

    >>> more_is_better("rows/s"), more_is_better("ms")
    (True, False)
    """
    return unit.endswith("/s")


def in_turn(ours: Callable[[], object], peer: Callable[[], object], runs: int = 5) -> tuple[float, float]:
    """Run both in turn, one warm-up each; return our median seconds and the median ratio ours / peer."""
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(runs + 1)][1:]
    return statistics.median(own for own, _ in pairs), statistics.median(own / other for own, other in pairs)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
