"""The columns of the log that are the same for all predictions of one origin and source."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from skewless.infra.predictions.arrow import cycled, equal_lists, numbers
from skewless.infra.predictions.origin import LoadColumns
from skewless.infra.predictions.record import Source
from skewless.infra.predictions.schema import FORMAT

_WORDS = ("model", "version", "runtime_id", "plan_hash", "missing", "role")


class Constants:
    """Columns made once and cut to the length that is asked for.

    Args:
        origin: what they say.
        source: what was sent.
    """

    def __init__(self, origin: LoadColumns, source: Source) -> None:
        self._origin, self._source = origin, source
        self.views = origin.views if source == "entities" else ()
        self._columns: Mapping[str, pa.Array] = {}
        self._read_columns: Mapping[str, pa.Array] = {}
        self._n = -1

    def columns(self, n: int) -> dict[str, pa.Array]:
        """Return the columns of n predictions."""
        self._reach(n)
        return {name: column.slice(0, n) for name, column in self._columns.items()}

    def read_columns(self, n: int) -> dict[str, pa.Array]:
        """Return name and hash of each view, for n predictions."""
        self._reach(n)
        return {name: column.slice(0, n * len(self.views)) for name, column in self._read_columns.items()}

    def _reach(self, n: int) -> None:
        if n > self._n:
            origin, hashes = self._origin, self._origin.transform_hashes
            self._n = n
            self._columns = {
                **{name: cycled([getattr(origin, name)], n) for name in _WORDS},
                "source": cycled([self._source], n),
                "policy": _policies(origin.policy, n),
                "tolerance": numbers(np.full(n, origin.tolerance)),
                "transform_hashes": equal_lists(n, len(hashes), cycled(hashes, n)),
                "format": numbers(np.full(n, FORMAT, dtype=np.uint8)),
            }
            self._read_columns = {
                "view": cycled([name for name, _ in self.views], n),
                "hash": cycled([digest for _, digest in self.views], n),
            }


def _policies(policy: int | None, n: int) -> pa.Array:
    return pa.nulls(n, pa.int64()) if policy is None else numbers(np.full(n, policy, dtype=np.int64))
