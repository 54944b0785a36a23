"""Descriptions of models in the Open Inference Protocol: metadata, configuration, index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import orjson

from skewless.infra.packages.served_model import ServedModel
from skewless.serving.models.table import ModelTable
from skewless.serving.oip.schemas import (
    ConfigParameter,
    ConfigTensor,
    IndexEntry,
    ModelConfig,
    ModelMetadata,
    TensorMetadata,
    VectorMetadata,
)
from skewless.serving.oip.signature import Signature, TensorType

_TRITON = {"BYTES": "TYPE_STRING"}


def metadata_of(model: ServedModel, signature: Signature, versions: list[str]) -> ModelMetadata:
    """Return a model's metadata.

    Args:
        versions: the loaded versions.
    """
    return ModelMetadata(
        name=model.name,
        versions=versions,
        platform=model.package.spec.algorithm,
        inputs=[_tensor(item) for item in signature.inputs],
        outputs=[_tensor(item) for item in signature.outputs.values()],
        parameters=VectorMetadata(
            vectors=_tensor(signature.vectors),
            features=list(signature.labels),
            views=list(signature.views),
            classes=list(signature.classes),
            plan_hash=model.plan.hash,
        ),
    )


def config_of(model: ServedModel, signature: Signature) -> ModelConfig:
    """Return a model's configuration in Triton's format."""
    package = model.package
    parameters = {
        "version": model.version,
        "digest": package.digest,
        "plan_hash": model.plan.hash,
        "task": package.spec.task,
        "runtime": model.runtime.runtime_id,
        "runtimes": orjson.dumps([trial.as_dict() for trial in model.trials]).decode(),
        "log": package.spec.log,
    }
    return ModelConfig(
        name=model.name,
        platform=package.spec.algorithm,
        max_batch_size=0,
        input=[_config(item) for item in signature.inputs],
        output=[_config(item) for item in signature.outputs.values()],
        parameters={name: ConfigParameter(string_value=value) for name, value in parameters.items()},
    )


def index_of(models: ModelTable, versions: Mapping[str, Sequence[str]]) -> Iterator[IndexEntry]:
    """Yield every version of every model, with the reason if it does not serve."""
    for name, known in versions.items():
        loaded = models.open_versions(name)
        for version in known:
            if version in loaded:
                yield IndexEntry(name=name, version=version, state="READY", reason="")
                continue
            problem = models.problems.get(f"{name} {version}") or (version == known[-1] and models.problems.get(name))
            yield IndexEntry(name=name, version=version, state="UNAVAILABLE", reason=problem or "not loaded")


def _tensor(item: TensorType) -> TensorMetadata:
    return TensorMetadata(name=item.name, datatype=item.datatype.name, shape=list(item.shape))


def _config(item: TensorType) -> ConfigTensor:
    kind = item.datatype.name
    return ConfigTensor(name=item.name, data_type=_TRITON.get(kind, f"TYPE_{kind}"), dims=list(item.shape))
