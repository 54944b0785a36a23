"""Models in the Open Inference Protocol: signature and request counts of each version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

from skewless.infra.packages.served_model import ServedModel
from skewless.serving.oip.schemas import Duration, InferenceStatistics, ModelStatistics
from skewless.serving.oip.signature import Signature
from skewless.serving.prediction.scored_batch import ScoredSlice

_NS = 1_000_000_000
_MILLISECOND_US = 1_000


@dataclass(slots=True)
class RequestCounts:
    """Counts the requests of one version; all calls come from one event loop.

    Args:
        last_us: time of the last successful request, microseconds; 0: none yet.
    """

    rows: int = 0
    executions: int = 0
    successes: int = 0
    success_s: float = 0.0
    failures: int = 0
    failure_s: float = 0.0
    last_us: int = 0

    def count_success(self, scored_slice: ScoredSlice, seconds: float) -> None:
        """Count a successful request; rows that were scored in one batch count as one execution."""
        self.rows += scored_slice.n
        self.executions += not scored_slice.start
        self.successes += 1
        self.success_s += seconds
        self.last_us = scored_slice.t

    def count_failure(self, seconds: float) -> None:
        """Count a failed request."""
        self.failures += 1
        self.failure_s += seconds

    def statistics(self, model: ServedModel) -> ModelStatistics:
        """Return the counts in the protocol's format."""
        no_requests = Duration(count=0, ns=0)
        return ModelStatistics(
            name=model.name,
            version=model.version,
            last_inference=self.last_us // _MILLISECOND_US,
            inference_count=self.rows,
            execution_count=self.executions,
            inference_stats=InferenceStatistics(
                success=Duration(count=self.successes, ns=int(self.success_s * _NS)),
                fail=Duration(count=self.failures, ns=int(self.failure_s * _NS)),
                queue=no_requests,
                compute_input=no_requests,
                compute_infer=no_requests,
                compute_output=no_requests,
                cache_hit=no_requests,
            ),
            batch_stats=[],
        )


class OipModel(NamedTuple):
    """Signature and request counts of one version."""

    signature: Signature
    counts: RequestCounts


class OipModels:
    """Creates the data of each version once, and drops it with the version."""

    def __init__(self) -> None:
        self._models: WeakKeyDictionary[ServedModel, OipModel] = WeakKeyDictionary()

    def get(self, model: ServedModel) -> OipModel:
        """Return the signature and counts of a version."""
        oip_model = self._models.get(model)
        if oip_model is None:
            oip_model = self._models[model] = OipModel(Signature(model), RequestCounts())
        return oip_model
