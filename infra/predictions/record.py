"""One logged request: everything that replay needs to build the same vectors again (SEMANTICS 2.7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.online.window_states import Applied
from skewless.rows import Versions
from skewless.status import StatusArray
from skewless.vector import Matrix

READ = pa.struct(
    [
        ("view", pa.string()),
        ("hash", pa.string()),
        ("status", pa.uint8()),
        ("event_ts", pa.int64()),
        ("created_ts", pa.int64()),
        ("seq", pa.int64()),
        ("run_id", pa.int64()),
        ("generation", pa.int32()),
        ("applied", pa.list_(pa.struct([("partition", pa.int64()), ("seq", pa.int64())]))),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("t", pa.int64()),
        ("read_end", pa.int64()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("runtime_id", pa.string()),
        ("tolerance", pa.float64()),
        ("plan_hash", pa.string()),
        ("transform_hashes", pa.list_(pa.string())),
        ("missing", pa.string()),
        ("skew_us", pa.int64()),
        ("inputs", pa.string()),
        ("reads", pa.list_(READ)),
        ("vector", pa.list_(pa.float64())),
        ("score", pa.float64()),
        ("checksum", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """The rows of one request, as arrays of ``n`` entries.

    Args:
        t: the prediction time, microseconds; one for the request.
        read_end: the clock after the store had answered.
        inputs: per row, the JSON text that the caller sent.
        versions: per view, where each row came from.
        applied: per windowed view, up to where its states had been applied.
        hashes: per view, the view's hash.
        constants: values of the other columns, the same for all rows.
    """

    ids: Sequence[str]
    t: int
    read_end: int
    inputs: Sequence[str]
    versions: Mapping[str, Versions]
    applied: Mapping[str, Applied]
    status: Mapping[str, StatusArray]
    hashes: Mapping[str, str]
    matrix: Matrix
    scores: npt.NDArray[np.float64]
    constants: Mapping[str, Any]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row of the log per prediction."""
        reads = [self._reads(view) for view in self.versions]
        sums = checksums(self.matrix, self.scores)
        for i, name in enumerate(self.ids):
            yield {
                "id": name,
                "t": self.t,
                "read_end": self.read_end,
                "inputs": self.inputs[i],
                "reads": [column[i] for column in reads],
                "vector": self.matrix[i],
                "score": float(self.scores[i]),
                "checksum": int(sums[i]),
                **self.constants,
            }

    def _reads(self, view: str) -> list[dict[str, Any]]:
        origin = self.versions[view]
        columns = zip(
            self.status[view].tolist(),
            origin.event_ts.tolist(),
            origin.created_ts.tolist(),
            origin.seq.tolist(),
            origin.run_id.tolist(),
            strict=True,
        )
        names = ("status", "event_ts", "created_ts", "seq", "run_id")
        fixed = {"view": view, "hash": self.hashes[view]}
        rows: list[dict[str, Any]] = [{**fixed, **dict(zip(names, values, strict=True))} for values in columns]
        if view in self.applied:
            self._add_applied(rows, self.applied[view])
        return rows

    @staticmethod
    def _add_applied(rows: list[dict[str, Any]], applied: Applied) -> None:
        for row in rows:
            row["generation"], row["applied"] = applied.generation, []
        slots = applied.slots
        triples = zip(slots.entity.tolist(), slots.partition.tolist(), slots.seq.tolist(), strict=True)
        for i, partition, seq in triples:
            rows[i]["applied"].append({"partition": partition, "seq": seq})


def checksums(matrix: Matrix, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return a checksum of each vector and its score, which tells an altered log row from an odd prediction.

    >>> checksums(np.array([[1.0]]), np.array([0.5])) == checksums(np.array([[1.0]]), np.array([-0.5]))
    array([False])
    """
    rows = np.column_stack([matrix, scores])
    rows[np.isnan(rows)] = np.nan  # every NaN is the same missing value
    sums = [blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(sums), dtype="<i8").astype(np.int64)


def to_table(records: Sequence[Record]) -> pa.Table:
    """Return log rows as Arrow, in the log's schema."""
    return pa.Table.from_pylist([row for record in records for row in record.rows()], schema=SCHEMA)
