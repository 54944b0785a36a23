"""The manifests of KServe: known fields only, a valid pod under the policy "restricted", and what our server has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from skewless.contract.settings import read_variables
from skewless_platforms.contracts import read_contract
from tests.docs.test_commands import BY_NAME

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infra" / "deploy" / "kserve"
# Fields of ServingRuntimeSpec (v1alpha1) for one model in one node, and of ModelSpec (v1beta1); KServe 0.16.
RUNTIME = {"annotations", "labels", "supportedModelFormats", "protocolVersions", "containers", "volumes", "disabled"}
FORMAT = {"name", "version", "autoSelect", "priority"}
MODEL = {"modelFormat", "protocolVersion", "runtime", "storageUri", "env", "resources"}
_CHECK = """
import json, sys, kubernetes_validate
for version in ("1.32", "1.37"):
    kubernetes_validate.validate(json.load(open(sys.argv[1])), version, strict=True)
"""


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return document


@pytest.fixture(scope="module")
def runtime() -> dict[str, Any]:
    spec: dict[str, Any] = load("serving-runtime.yaml")["spec"]
    return spec


def test_the_manifests_have_only_known_fields(runtime: dict[str, Any]) -> None:
    assert runtime.keys() <= RUNTIME
    assert all(item.keys() <= FORMAT for item in runtime["supportedModelFormats"])
    model = load("inference-service.yaml")["spec"]["predictor"]["model"]
    assert model.keys() <= MODEL
    formats = {item["name"] for item in runtime["supportedModelFormats"] if item["autoSelect"]}
    assert model["modelFormat"]["name"] in formats
    assert model["protocolVersion"] in runtime["protocolVersions"]


def test_the_pod_is_valid_and_restricted(runtime: dict[str, Any], tmp_path: Path) -> None:
    python = ROOT / ".venv-deploy" / "bin" / "python"
    if not python.exists():
        pytest.skip("no .venv-deploy: `make setup-deploy` creates it")
    spec = {name: runtime[name] for name in ("containers", "volumes")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fraud"}, "spec": spec}
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    command = [str(python), "-c", _CHECK, str(tmp_path / "pod.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (container,) = runtime["containers"]
    assert container["name"] == "kserve-container"
    context = container["securityContext"]
    assert (context["runAsNonRoot"], context["readOnlyRootFilesystem"]) == (True, True)
    assert (context["allowPrivilegeEscalation"], context["privileged"]) == (False, False)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["resources"].keys() == {"requests", "limits"}


def test_the_container_is_what_the_server_expects(runtime: dict[str, Any]) -> None:
    (container,) = runtime["containers"]
    verb, *options = container["args"]
    context = BY_NAME[verb].make_context(verb, options)
    contract = read_contract(context.params["platform"], {})
    assert [port["containerPort"] for port in container["ports"]] == [contract.port]
    assert runtime["annotations"]["prometheus.kserve.io/port"] == str(contract.port)
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]  # noqa: S108 - of the container
    variables = [item["name"] for item in container["env"]]
    assert len(read_variables(dict.fromkeys(variables, "x"))) == len(variables)
    assert all("valueFrom" in item for item in container["env"])  # no secret is in the manifest
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} == {contract.port}
    assert [probe["path"] for probe in probes] == ["/health/live", "/v2/models/{{.Name}}/ready", "/health/live"]
