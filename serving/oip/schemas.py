"""The protocol's JSON objects, as the OpenAPI document describes them; requests are parsed by our own code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from skewless.serving.oip.datatypes import DATATYPES
from skewless.serving.oip.request import MOST_DIMENSIONS

Parameters = dict[str, Any]
Scalar = bool | int | float | str


class OipError(BaseModel):
    """Every error of the protocol's routes."""

    error: str = Field(description="what is wrong, with which value, and what to do about it")


class ServerLive(BaseModel):
    """Whether the server answers."""

    live: bool


class ServerReady(BaseModel):
    """Said when the server answers predictions; else the status is 503 and ``error`` says why."""

    live: bool
    ready: bool


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(BaseModel):
    """Whether a model answers."""

    name: str
    ready: bool


class ModelVersions(BaseModel):
    """The versions of a model that may be asked for."""

    name: str
    versions: list[str]


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class VectorMetadata(BaseModel):
    """What the numbers of tensors are, and the other way to ask."""

    vectors: TensorMetadata = Field(description="the one input that may stand in place of all others")
    features: list[str] = Field(description="columns of `features`, `feature_values` and, but for the last, others")
    views: list[str] = Field(description="columns of `feature_age_s`, `feature_status` and `feature_stale`")
    classes: list[str] = Field(description="columns of the scores of a multiclass model")
    plan_hash: str


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: VectorMetadata


class InferenceInput(BaseModel):
    """A tensor of a request."""

    name: str
    shape: list[Annotated[int, Field(ge=1)]] = Field(max_length=MOST_DIMENSIONS)
    datatype: str = Field(json_schema_extra={"enum": [*DATATYPES]})
    parameters: Parameters | None = None
    data: list[Any] | None = Field(None, description="flat or nested; none where binary data follows the JSON")


class InferenceOutput(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: Parameters | None = None


class InferenceRequest(BaseModel):
    """What ``infer`` takes."""

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
    """What ``infer`` answers."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Scalar] = Field(description="model_version, plan_hash, log, t_us, degraded")
    outputs: list[OutputTensor]


class IndexRequest(BaseModel):
    """What ``index`` takes; no body asks for all."""

    ready: bool | None = Field(default=None, description="list only the versions that answer")


class LoadParameters(BaseModel):
    """Parameters of ``load``."""

    model_config = ConfigDict(extra="forbid")

    version: str | None = Field(None, pattern="^[0-9]+$", description="one more version, besides the champion")


class LoadRequest(BaseModel):
    """What ``load`` takes; no body asks for the champion."""

    parameters: LoadParameters | None = None


class IndexEntry(BaseModel):
    """A version in the repository."""

    name: str
    version: str
    state: str = Field(description="`READY` or `UNAVAILABLE`")
    reason: str


class LoadReply(BaseModel):
    """What was loaded."""

    name: str
    version: str


class Duration(BaseModel):
    """How often, and for how long in all."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Durations; only ``success`` and ``fail`` are measured by model, the others are in ``/metrics``."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration


class ModelStatistics(BaseModel):
    """What a worker has answered by the protocol since it started."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since the epoch; 0: none yet")
    inference_count: int = Field(description="rows")
    execution_count: int = Field(description="times that the model was called")
    inference_stats: InferenceStatistics
    batch_stats: list[Any]


class Statistics(BaseModel):
    """The statistics of some versions."""

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
    """A model's configuration, in the words of Triton."""

    name: str
    platform: str
    max_batch_size: int = Field(description="0: shapes hold the number of rows")
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    parameters: dict[str, ConfigParameter]


ERRORS: Mapping[int | str, dict[str, Any]] = {"default": {"model": OipError, "description": "why not"}}
