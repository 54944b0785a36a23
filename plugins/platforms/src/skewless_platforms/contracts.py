"""The contracts of platforms: where a container finds its model, its port, and the paths that it must answer.

Sources, read in November 2026: "Use Your Own Inference Code with Hosting Services" (SageMaker), "Custom container
requirements for prediction" (Vertex AI), "Deploy a custom container" (Azure ML), "Serving Runtime" (KServe).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from skewless.contract.errors import DefinitionError

PlatformName = Literal["kserve", "sagemaker", "vertex", "azure"]
_PORT = 8080
_MOST_PORT = 65_535
_DEADLINE_MS = 55_000.0  # SageMaker and Vertex AI drop a request after 60 s; our error shall come first


@dataclass(frozen=True, kw_only=True)
class PlatformContract:
    """The contract of one platform, for one container.

    Args:
        model: folder, or ``gs://`` address, of the model; None: the environment names none.
        port: port to listen on.
        predict: path of predictions; None: the platform uses paths that every server has.
        health: path of health checks; None: as above.
        deadline_ms: deadline of requests that set none, milliseconds; None: as the settings say.
    """

    model: str | None
    port: int = _PORT
    predict: str | None = None
    health: str | None = None
    deadline_ms: float | None = None


def read_contract(platform: PlatformName, environment: Mapping[str, str]) -> PlatformContract:
    """Return the contract of a platform.

    >>> read_contract("sagemaker", {}).predict
    '/invocations'

    Args:
        environment: the environment variables of the container.

    Raises:
        DefinitionError: the platform sets a variable that is missing, or a variable has an invalid value.
    """
    match platform:
        case "kserve":
            return PlatformContract(model="/mnt/models")
        case "sagemaker":
            return PlatformContract(
                model="/opt/ml/model",
                port=_read_port("SAGEMAKER_BIND_TO_PORT", environment),
                predict="/invocations",
                health="/ping",
                deadline_ms=_DEADLINE_MS,
            )
        case "vertex":
            return PlatformContract(
                model=environment.get("AIP_STORAGE_URI") or None,  # empty without an artifact URI
                port=_read_port("AIP_HTTP_PORT", environment),
                predict=_read_path("AIP_PREDICT_ROUTE", environment),
                health=_read_path("AIP_HEALTH_ROUTE", environment),
                deadline_ms=_DEADLINE_MS,
            )
        case "azure":
            return PlatformContract(model=environment.get("AZUREML_MODEL_DIR") or None, predict="/score", health="/")


def _read_port(name: str, environment: Mapping[str, str]) -> int:
    text = environment.get(name) or str(_PORT)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_PORT):
        raise DefinitionError(f"environment variable {name}", "is not a port", value=text, fix="set 1 to 65535")
    return int(text)


def _read_path(name: str, environment: Mapping[str, str]) -> str:
    text = environment.get(name, "")
    # Braces would be names of parameters to the router.
    if not text.startswith("/") or any(sign in text for sign in "{}?#% "):
        fix = "Vertex AI sets it; elsewhere set a path such as /predict"
        raise DefinitionError(f"environment variable {name}", "is not a path", value=text, fix=fix)
    return text
