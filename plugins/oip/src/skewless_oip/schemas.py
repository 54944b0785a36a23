"""JSON objects of the Open Inference Protocol for the OpenAPI document; our own code parses requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from skewless_oip.datatypes import DATATYPES
from skewless_oip.request import MAX_DIMENSIONS

Parameters = dict[str, Any]
Scalar = bool | int | float | str


class OipError(BaseModel):
    """Error reply of the protocol's routes."""

    error: str = Field(description="The problem, the invalid value, and a way to solve the problem.")


class ServerLive(BaseModel):
    """Whether the server responds."""

    live: bool


class ServerReady(BaseModel):
    """Reply of a ready server; otherwise the status is 503, and ``error`` gives the reasons."""

    live: bool
    ready: bool


class ServerMetadata(BaseModel):
    """Description of the server."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(BaseModel):
    """Whether a model is served."""

    name: str
    ready: bool


class ModelVersions(BaseModel):
    """Loaded versions of a model."""

    name: str
    versions: list[str]


class TensorMetadata(BaseModel):
    """An input or output of a model; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class VectorMetadata(BaseModel):
    """Meaning of the columns of a model's tensors, and its alternative input."""

    vectors: TensorMetadata = Field(description="The single input that replaces all others.")
    features: list[str] = Field(
        description="Columns of `features`, `feature_values` and, without the last, `contributions`."
    )
    views: list[str] = Field(description="Columns of `feature_age_s`, `feature_status` and `feature_stale`.")
    classes: list[str] = Field(description="Columns of the scores of a multiclass model.")
    plan_hash: str = Field(
        description="Hash of the part of the feature plan that the model version pins, as `skewless versions` shows it."
    )


class ModelMetadata(BaseModel):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: VectorMetadata


class InferenceInput(BaseModel):
    """A tensor of a request."""

    name: str
    shape: list[Annotated[int, Field(ge=1)]] = Field(max_length=MAX_DIMENSIONS)
    datatype: str = Field(json_schema_extra={"enum": [*DATATYPES]})
    parameters: Parameters | None = None
    data: list[Any] | None = Field(None, description="Flat or nested; absent if binary data follows the JSON.")


class InferenceOutput(BaseModel):
    """A requested output."""

    name: str
    parameters: Parameters | None = None


class InferenceRequest(BaseModel):
    """Body of ``infer``."""

    id: str | None = None
    parameters: Parameters | None = Field(None, description="as_of, max_feature_age_s, timeout, binary_data_output")
    inputs: list[InferenceInput] = Field(min_length=1)
    outputs: list[InferenceOutput] | None = None


class OutputTensor(BaseModel):
    """A tensor of a reply."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters | None = None
    data: list[Any] | None = None


class InferenceReply(BaseModel):
    """Reply of ``infer``."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Scalar] = Field(description="model_version, plan_hash, log, t_us, degraded")
    outputs: list[OutputTensor]


class IndexRequest(BaseModel):
    """Body of ``index``; without a body all versions are listed."""

    ready: bool | None = Field(default=None, description="List only versions that are loaded.")


class LoadParameters(BaseModel):
    """Parameters of ``load``."""

    model_config = ConfigDict(extra="forbid")

    version: str | None = Field(None, pattern="^[0-9]+$", description="A version to load in addition to the champion.")


class LoadRequest(BaseModel):
    """Body of ``load``; without a body the champion is loaded."""

    parameters: LoadParameters | None = None


class IndexEntry(BaseModel):
    """A version of a model."""

    name: str
    version: str
    state: str = Field(description="`READY` or `UNAVAILABLE`.")
    reason: str


class LoadReply(BaseModel):
    """Reply of ``load``."""

    name: str
    version: str


class Duration(BaseModel):
    """Number of requests, and their total duration."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Durations; only ``success`` and ``fail`` are measured per model, see ``/metrics`` for the others."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration


class ModelStatistics(BaseModel):
    """Request counts of a version in this worker since its start, over this protocol only."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since the epoch; 0: none yet.")
    inference_count: int = Field(description="Number of rows.")
    execution_count: int = Field(description="Number of model executions.")
    inference_stats: InferenceStatistics
    batch_stats: list[Any]


class Statistics(BaseModel):
    """Statistics of several versions."""

    model_stats: list[ModelStatistics]


class ConfigTensor(BaseModel):
    """A tensor in a model's configuration."""

    name: str
    data_type: str
    dims: list[int]


class ConfigParameter(BaseModel):
    """A parameter in a model's configuration."""

    string_value: str


class ModelConfig(BaseModel):
    """Configuration of a model in Triton's format."""

    name: str
    platform: str
    max_batch_size: int = Field(description="0: the first dimension of each shape is the number of rows.")
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    parameters: dict[str, ConfigParameter]


ERRORS: Mapping[int | str, dict[str, Any]] = {"default": {"model": OipError, "description": "Error"}}
