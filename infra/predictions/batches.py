"""Records of the prediction log as Arrow: arrays are laid end to end, no row is touched alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from skewless.contract.status import Int64Array
from skewless.contract.vector import Matrix
from skewless.infra.predictions.arrow import end_to_end, equal_lists, numbers, texts, utf8
from skewless.infra.predictions.checksums import checksums
from skewless.infra.predictions.constants import Constants
from skewless.infra.predictions.reads import reads_of
from skewless.infra.predictions.record import Record, best_output
from skewless.infra.predictions.schema import SCHEMA

_NUMBERS = ("t", "asked_at", "read_start", "read_end", "skew_us")


def to_batch(records: Sequence[Record], constants: Constants) -> pa.RecordBatch:
    """Return records of one origin and source as rows of the log."""
    # One pass over the records: a field of all of them is a tuple from here on.
    held = dict(zip(Record._fields, zip(*records, strict=True), strict=True))
    lengths = np.fromiter(map(len, held["ids"]), dtype=np.int64, count=len(records))
    columns = constants.columns(int(lengths.sum())) | _outputs(held["matrix"], held["scores"])
    for name in _NUMBERS:
        columns[name] = numbers(np.repeat(np.array(held[name], dtype=np.int64), lengths))
    columns["narrow"] = numbers(np.repeat(np.array(held["narrow"], dtype=np.uint8), lengths)).cast(pa.bool_())
    columns["id"] = texts(list(chain.from_iterable(held["ids"])))
    columns["inputs"] = utf8(list(chain.from_iterable(held["inputs"])))
    columns["reads"] = reads_of(held["versions"], held["status"], held["applied"], lengths, constants)
    columns["watermarks"] = _watermarks(held["watermarks"], lengths)
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _watermarks(moments: Sequence[Int64Array], lengths: Int64Array) -> pa.ListArray:
    """Return of each row those of its views, in the order of its reads; null is unknown."""
    rows = np.repeat(np.stack(moments), lengths, axis=0)
    known = np.ascontiguousarray(rows > 0).reshape(-1)
    return equal_lists(len(rows), rows.shape[1], numbers(rows, known))


def _outputs(matrices: Sequence[Matrix], outputs: Sequence[Matrix]) -> dict[str, pa.Array]:
    matrix = end_to_end(matrices).reshape(-1, matrices[0].shape[1])
    scores = np.concatenate(outputs)
    best, several = best_output(scores), scores.ndim > 1
    return {
        "vector": _lists(matrix),
        "score": numbers(best),
        "scores": _lists(scores) if several else pa.nulls(len(scores), SCHEMA.field("scores").type),
        "checksum": numbers(checksums(matrix, best, scores) if several else checksums(matrix, best)),
    }


def _lists(rows: Matrix) -> pa.ListArray:
    return equal_lists(len(rows), rows.shape[1], numbers(rows))
