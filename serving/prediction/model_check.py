"""A synthetic prediction: reads the markers of a model's views and scores reference rows of its package.

The rows and their scores come from the package, not from a caller, so that nothing is logged, counted or cached, and
nobody can predict without the log this way.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from skewless.contract.plain_record import PlainRecord
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.runtimes.certification import certify
from skewless.serving.prediction.feature_reads import FeatureReads


@dataclass(frozen=True, kw_only=True)
class ModelCheck(PlainRecord):
    """The result of a synthetic prediction.

    Args:
        rows: reference rows that were scored, in one call and row by row.
        bit_equal: all margins have the bits of the library that trained the model.
        largest_difference: of a margin.
        incomplete_views: views whose rows in the online store are incomplete or too old; predictions read UNAVAILABLE.
        read_ms: time of the read of the online store, milliseconds.
        score_ms: time of all scores, milliseconds.
    """

    model: str
    version: str
    runtime: str
    rows: int
    bit_equal: bool
    largest_difference: float
    incomplete_views: list[str]
    read_ms: float
    score_ms: float


async def check_model(model: ServedModel, reads: FeatureReads, pool: Executor, now_us: int) -> ModelCheck:
    """Return the result for a served model.

    Raises:
        StoreError: the online store did not answer.
        PackageError: the runtime gives other margins than the library that trained the model.
    """
    started = time.perf_counter()
    stored = await reads.read([], list(model.reader.markers), now_us)
    marker_status = model.reader.check_ages(stored.marker_status, now_us)
    read_at = time.perf_counter()
    reference = model.package.reference
    loop, tolerance = asyncio.get_running_loop(), model.package.spec.tolerance
    certificate = await loop.run_in_executor(pool, lambda: certify(model.runtime, reference, tolerance=tolerance))
    views: list[Any] = list(model.plan.all_views)
    return ModelCheck(
        model=model.name,
        version=model.version,
        runtime=certificate.runtime_id,
        rows=certificate.rows,
        bit_equal=certificate.bit_equal,
        largest_difference=certificate.largest_difference,
        incomplete_views=[
            view.name
            for view in views
            if not marker_status.lost.isdisjoint((view.hash, *model.reader.markers_of(view)))
        ],
        read_ms=(read_at - started) * 1e3,
        score_ms=(time.perf_counter() - read_at) * 1e3,
    )
