"""Conversion of scored batches to rows of the prediction log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import orjson

from skewless.infra.predictions.record import LoadColumns, PredictionBatch
from skewless.serving.prediction.scored_batch import ScoredBatch

_NONE = np.empty(0, dtype=np.int64)


class ReadTimes(NamedTuple):
    """When the rows of a batch were requested and read, microseconds.

    Args:
        requested_at: time when the batch began; equals ``t``, except in requests with ``as_of``.
        read_start: time before the oldest value was read.
        read_end: time after the last value was read.
    """

    requested_at: int
    read_start: int
    read_end: int


def make_record(
    scored: ScoredBatch, origin: LoadColumns, rows: Iterable[object], times: ReadTimes, skew_us: int
) -> PredictionBatch:
    """Return the log rows of a scored batch.

    Args:
        origin: model version and role.
        rows: each as its caller sent it, plain JSON values.
        skew_us: measured difference between the clocks of the store and the server.
    """
    vectors = scored.vectors
    return PredictionBatch(
        origin=origin,
        ids=scored.ids,
        t=scored.t,
        asked_at=times.requested_at,
        read_start=times.read_start,
        read_end=times.read_end,
        skew_us=skew_us,
        inputs=[_text(row) for row in rows],
        matrix=scored.matrix,
        scores=scored.scores,
        status=scored.status,
        versions=vectors.versions if vectors else {},
        applied=vectors.applied if vectors else {},
        watermarks=vectors.watermark if vectors else _NONE,
        source="entities" if vectors else "vectors",
        narrow=scored.narrow,
    )


def _text(row: Any) -> bytes:  # noqa: ANN401 - any JSON value
    try:
        return orjson.dumps(row)
    except TypeError:
        return json.dumps(row, separators=(",", ":")).encode()  # an integer beyond 64 bits
