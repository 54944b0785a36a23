"""The ids of predictions: each begins with its time, so that a search for it reads little of the log.

An id is the time of evaluation, the number of its process, and a counter: ``19ad1f7c2e0-8c81a2f7-1f``. That of a
decision has a hash of decision stream and log partition, and the position of the event: it follows from the event.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from hashlib import blake2b

_TIMED = re.compile(r"([0-9a-f]{11})-[0-9a-f]{8}-[0-9a-f]+")
_MILLISECOND_US = 1_000
_PROCESS_BYTES = 4


class PredictionIds:
    """Makes ids that no other process and no other object makes."""

    def __init__(self) -> None:
        self._process = os.urandom(_PROCESS_BYTES).hex()
        self._counter = itertools.count()

    def take(self, t_us: int, n: int) -> list[str]:
        """Return n new ids of predictions for one time, UTC microseconds."""
        head = f"{t_us // _MILLISECOND_US:011x}-{self._process}-"
        return [f"{head}{number:x}" for number in itertools.islice(self._counter, n)]


def decision_ids(stream: str, partition: str, seqs: Iterable[int], times_us: Iterable[int]) -> list[str]:
    """Return the ids of the decisions of a stream for the events at positions of a log partition.

    Args:
        times_us: the times for which they are evaluated, UTC microseconds.

    >>> decision_ids("fraud", "events/payments/ab12/0", [31], [1764459266784000])
    ['19ad1f7c2e0-26e6dadb-1f']
    """
    origin = blake2b(f"{stream}/{partition}".encode(), digest_size=_PROCESS_BYTES).hexdigest()
    each = zip(seqs, times_us, strict=True)
    return [f"{t_us // _MILLISECOND_US:011x}-{origin}-{seq:x}" for seq, t_us in each]


def find_id_time(prediction: str) -> range | None:
    """Return the times, microseconds, at which a prediction may have been evaluated; None: its id does not say.

    >>> find_id_time("19ad1f7c2e0-8c81a2f7-1f"), find_id_time("529985b27312-1")
    (range(1764459266784000, 1764459266785000), None)
    """
    match = _TIMED.fullmatch(prediction)
    if match is None:
        return None
    start = int(match[1], 16) * _MILLISECOND_US
    return range(start, start + _MILLISECOND_US)
