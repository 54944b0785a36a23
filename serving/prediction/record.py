"""What the prediction log keeps of rows that were scored together."""

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
    """When rows were asked for and read, microseconds.

    Args:
        asked_at: the clock when their batch began; ``t``, but for requests that name another time.
        read_start: the clock when the oldest value that was used had been read.
        read_end: the clock when all of them were there.
    """

    asked_at: int
    read_start: int
    read_end: int


def record_of(
    scored: ScoredBatch, origin: LoadColumns, rows: Iterable[object], times: ReadTimes, skew_us: int
) -> PredictionBatch:
    """Return the log's record.

    Args:
        origin: of the model, in its role.
        rows: each as its caller sent it, plain JSON values.
        skew_us: measured distance between the clocks of store and server.
    """
    vectors = scored.looked_up
    return PredictionBatch(
        origin=origin,
        ids=scored.ids,
        t=scored.t,
        asked_at=times.asked_at,
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
