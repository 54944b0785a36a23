"""How long threads were ready to run and had no core: lateness that only a less busy machine would avoid."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_SAMPLE_S = 0.02
_now = time.perf_counter


class RunDelays(threading.Thread):
    """Samples, from the kernel, the time that threads of some processes have waited for a core.

    A thread that waits for a lock, a socket or a sleep does not wait for a core: what a program causes is not counted.

    Args:
        pids: of the processes.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._pids = pids
        self._stopping = threading.Event()
        self._times: list[float] = []
        self._samples: list[dict[tuple[int, int], float]] = []
        self._sample()

    def run(self) -> None:
        """Sample until stopped."""
        while not self._stopping.wait(_SAMPLE_S):
            self._sample()

    def stop(self) -> None:
        """Take a last sample."""
        self._stopping.set()
        self.join()
        self._sample()

    def between(self, start: float, end: float) -> float:
        """Return the seconds of one chain of work, from main thread to another thread and back in each process.

        Args:
            start: on ``time.perf_counter``.
            end: on the same clock.
        """
        first = self._samples[max(bisect_right(self._times, start) - 1, 0)]
        last = self._samples[min(bisect_left(self._times, end), len(self._samples) - 1)]
        waited = {thread: delay - first.get(thread, 0.0) for thread, delay in last.items()}
        total = 0.0
        for pid in self._pids:
            others = [delay for (owner, thread), delay in waited.items() if owner == pid != thread]
            total += waited.get((pid, pid), 0.0) + max(others, default=0.0)
        return total

    def _sample(self) -> None:
        now, sample = _now(), {}
        for pid in self._pids:
            for folder in Path(f"/proc/{pid}/task").glob("*"):
                with suppress(OSError):  # the thread has ended
                    sample[pid, int(folder.name)] = int((folder / "schedstat").read_text().split()[1]) / 1e9
        self._times.append(now)
        self._samples.append(sample)


@contextmanager
def run_delays(pids: Sequence[int]) -> Iterator[RunDelays]:
    """Sample while the block runs."""
    delays = RunDelays(pids)
    delays.start()
    try:
        yield delays
    finally:
        delays.stop()
