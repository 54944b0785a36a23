"""Models as the protocol shows them."""

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
        last_us: when the last request was answered, microseconds; 0: never.
    """

    rows: int = 0
    executions: int = 0
    answered: int = 0
    answered_s: float = 0.0
    refused: int = 0
    refused_s: float = 0.0
    last_us: int = 0

    def answer(self, answer: ScoredSlice, seconds: float) -> None:
        """Count an answer that took so long; rows scored together count as one execution."""
        self.rows += answer.n
        self.executions += not answer.start
        self.answered += 1
        self.answered_s += seconds
        self.last_us = answer.t

    def refuse(self, seconds: float) -> None:
        """Count a refusal."""
        self.refused += 1
        self.refused_s += seconds

    def statistics(self, model: ServedModel) -> ModelStatistics:
        """Return what the protocol shows of it."""
        none = Duration(count=0, ns=0)
        return ModelStatistics(
            name=model.name,
            version=model.version,
            last_inference=self.last_us // _MILLISECOND_US,
            inference_count=self.rows,
            execution_count=self.executions,
            inference_stats=InferenceStatistics(
                success=Duration(count=self.answered, ns=int(self.answered_s * _NS)),
                fail=Duration(count=self.refused, ns=int(self.refused_s * _NS)),
                queue=none,
                compute_input=none,
                compute_infer=none,
                compute_output=none,
                cache_hit=none,
            ),
            batch_stats=[],
        )


class OipModel(NamedTuple):
    """One version: the tensors that it takes and gives, and what it has answered."""

    signature: Signature
    tally: RequestCounts


class OipModels:
    """Makes each version's once, and forgets it with the version."""

    def __init__(self) -> None:
        self._models: WeakKeyDictionary[ServedModel, OipModel] = WeakKeyDictionary()

    def of(self, model: ServedModel) -> OipModel:
        """Return what the protocol shows of a version."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = OipModel(Signature(model), RequestCounts())
        return found
