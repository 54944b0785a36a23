"""What a contestant measures in its own process: wall and CPU seconds and the memory of named laps."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True, kw_only=True)
class Lap:
    """One measured stretch of work.

    Args:
        seconds: wall time of one repetition.
        cpu_seconds: of the whole process, user and system, of one repetition.
        base_bytes: resident memory when it began: imports, open connections, inputs at hand.
        peak_bytes: greatest resident memory while it ran, the base included.
    """

    seconds: float
    cpu_seconds: float
    base_bytes: int
    peak_bytes: int


@dataclass(kw_only=True)
class Meter:
    """Collects the laps and facts of one child process."""

    laps: dict[str, list[Lap]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def lap(self, name: str = "work", times: int = 1) -> Iterator[None]:
        """Measure the block; a name that comes again adds a lap, and reports count its median.

        Args:
            times: how many repetitions the block makes.
        """
        base = _reset_peak()
        cpu, start = time.process_time(), time.perf_counter()
        yield
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        lap = Lap(
            seconds=seconds / times, cpu_seconds=cpu_seconds / times, base_bytes=base, peak_bytes=max(_peak(), base)
        )
        self.laps.setdefault(name, []).append(lap)

    def note(self, name: str, value: float) -> None:
        """Keep one more number beside the laps."""
        self.facts[name] = float(value)

    def report(self, digest: str) -> Report:
        """Return what was collected."""
        return Report(laps=dict(self.laps), facts=dict(self.facts), digest=digest)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one child process measured.

    Args:
        digest: identity of its result; contestants must agree on it.
    """

    laps: Mapping[str, Sequence[Lap]]
    facts: Mapping[str, float]
    digest: str

    def seconds(self, lap: str = "work") -> float:
        """Return the median wall seconds of a lap."""
        return statistics.median(item.seconds for item in self.laps[lap])

    def cpu_seconds(self, lap: str = "work") -> float:
        """Return the median CPU seconds of a lap, all threads."""
        return statistics.median(item.cpu_seconds for item in self.laps[lap])

    def peak_bytes(self, lap: str = "work") -> int:
        """Return the greatest resident memory of a lap, imports included."""
        return max(item.peak_bytes for item in self.laps[lap])

    def grown_bytes(self, lap: str = "work") -> int:
        """Return the greatest growth of resident memory within a lap: its peak without imports."""
        return max(item.peak_bytes - item.base_bytes for item in self.laps[lap])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Report:
        """Return the report that ``as_dict`` wrote.

        >>> lap = Lap(seconds=2.0, cpu_seconds=1.0, base_bytes=10, peak_bytes=30)
        >>> report = Report(laps={"work": [lap]}, facts={"rows": 5.0}, digest="d")
        >>> Report.from_dict(report.as_dict()) == report, report.grown_bytes()
        (True, 20)
        """
        laps = {name: [Lap(**item) for item in items] for name, items in body["laps"].items()}
        return cls(laps=laps, facts=body["facts"], digest=body["digest"])


def resident_bytes() -> int:
    """Return the resident memory of this process now."""
    return _status("VmRSS") or _greatest()


def _reset_peak() -> int:
    """Return the resident memory now, and let the peak start from it where the system can do that."""
    if _CLEAR.exists():
        _CLEAR.write_text(_RESET_PEAK)
    return resident_bytes()


def _peak() -> int:
    return _status("VmHWM") or _greatest()


def _status(name: str) -> int:
    if not _STATUS.exists():
        return 0
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _greatest() -> int:
    """Return the greatest resident memory since the process began, as far as any Unix can tell."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
