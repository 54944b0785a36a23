"""Tensors, constant parts of the replies, and request counts of each model version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless_oip.datatypes import BOOL, BYTES, FP32, FP64, INT32, INT64, Datatype
from skewless_oip.schemas import Duration, InferenceStatistics, ModelStatistics

FEATURES = "features"
_ANY = -1
_OF_COLUMN: Mapping[DType, Datatype] = {
    DType.INT32: INT32,
    DType.INT64: INT64,
    DType.FLOAT32: FP32,
    DType.FLOAT64: FP64,
    DType.BOOL: BOOL,
    DType.STRING: BYTES,
    DType.BYTES: BYTES,
    DType.TIMESTAMP: INT64,
}
_NS = 1_000_000_000
_MILLISECOND_US = 1_000


class TensorType(NamedTuple):
    """Name, datatype and shape of a tensor; -1 is any length."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class Signature:
    """Input and output tensors of one model version.

    Args:
        model: used only for construction, so that a dropped version is released.
    """

    def __init__(self, model: ServedModel) -> None:
        plan, spec = model.plan, model.package.spec
        self.columns: Mapping[str, Column] = {column.name: column for column in (*plan.join_keys, *plan.request)}
        self.labels = model.assembler.labels
        self.classes = spec.classes
        self.views = tuple(view.name for view in plan.all_views)
        self.inputs = [TensorType(name, _OF_COLUMN[column.dtype], (_ANY,)) for name, column in self.columns.items()]
        self.vectors = TensorType(FEATURES, FP64, (_ANY, len(self.labels)))
        self.outputs = self._outputs(
            model.runtime.n_outputs,
            has_decisions=bool(spec.actions or spec.classes),
            has_policy=spec.policy is not None,
            explores=spec.explore is not None,
            has_bounds=model.bounds is not None,
        )
        self.default_outputs = ("score", "decision") if "decision" in self.outputs else ("score",)
        self.name = model.name
        names = orjson.dumps({"model_name": model.name, "model_version": model.version})
        lineage = orjson.dumps({"model_version": model.version, "plan_hash": plan.hash, "log": spec.log})
        # Without the closing brace: `head` adds more fields.
        self._head = names[:-1]
        self._lineage = b',"parameters":%b' % lineage[:-1]

    def head(self, request_id: str | None, t: int, *, degraded: bool, narrow: bool = False) -> bytes:
        """Return the JSON of a reply up to its outputs.

        Args:
            t: evaluation time, microseconds.
            narrow: whether float64 inputs arrived as floats of fewer bits, which the reply then says.
        """
        name = b"" if request_id is None else b',"id":' + orjson.dumps(request_id)
        flag = b"true" if degraded else b"false"
        flag += b',"narrow":true' if narrow else b""
        return b'%b%b%b,"t_us":%d,"degraded":%b},' % (self._head, name, self._lineage, t, flag)

    def merged_head(
        self, request_id: str | None, t: int, versions: Sequence[str], *, degraded: bool, narrow: bool
    ) -> bytes:
        """Return the JSON of a reply of several versions up to its outputs.

        Args:
            t: evaluation time, microseconds.
            versions: the versions that served rows, each once.
            narrow: as in ``head``.
        """
        names: dict[str, Any] = {"model_name": self.name} | ({} if request_id is None else {"id": request_id})
        flags = {"degraded": degraded} | ({"narrow": True} if narrow else {})
        parameters = {"model_versions": ",".join(versions), "t_us": t, **flags}
        return orjson.dumps(names | {"parameters": parameters})[:-1] + b","

    def _outputs(
        self, n_scores: int, *, has_decisions: bool, has_policy: bool, explores: bool, has_bounds: bool
    ) -> dict[str, TensorType]:
        wide = () if n_scores == 1 else (n_scores,)
        n_features, n_views = len(self.labels), len(self.views)
        tensors: Sequence[TensorType] = (
            TensorType("score", FP64, (_ANY, *wide)),
            TensorType("decision", BYTES, (_ANY,)),
            TensorType("reasons", BYTES, (_ANY,)),
            TensorType("explored", BOOL, (_ANY,)),
            TensorType("prediction_id", BYTES, (_ANY,)),
            TensorType("feature_values", FP64, (_ANY, n_features)),
            TensorType("feature_age_s", FP64, (_ANY, n_views)),
            TensorType("feature_status", BYTES, (_ANY, n_views)),
            TensorType("feature_stale", BOOL, (_ANY, n_views)),
            TensorType("contributions", FP64, (_ANY, *wide, n_features + 1)),
            TensorType("leaves", INT32, (_ANY, _ANY)),
            TensorType("out_of_bounds", BYTES, (_ANY,)),
            TensorType("version", BYTES, (_ANY,)),
        )
        optional = {
            "decision": has_decisions,
            "reasons": has_policy,
            "explored": explores,
            "out_of_bounds": has_bounds,
        }
        omitted = {name for name, exists in optional.items() if not exists}
        return {tensor.name: tensor for tensor in tensors if tensor.name not in omitted}


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
