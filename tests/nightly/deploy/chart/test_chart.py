"""The chart renders what Kubernetes accepts and the policies allow, for its values files and for random values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from skewless.contract.settings import Settings, read_variables
from skewless.version import __version__
from tests.nightly.deploy.chart.generated_values import releases
from tests.nightly.deploy.chart.policies import POLICIES, violations
from tests.nightly.deploy.chart.release import Object, of_kind, workloads
from tools.chart import CHART, OWN, SCHEMA, VALUES, Chart, ChartError, read_values, schema_text

OLDEST, NEWEST = "1.32", "1.37"
CRDS = yaml.safe_load(Path(__file__).with_name("crds.yaml").read_text(encoding="utf-8"))
ALL_VALUES = ("default", *VALUES)


def release(chart: Chart, name: str) -> list[Object]:
    """Return the objects for a values file; ``default``: for none."""
    return chart.render({} if name == "default" else read_values(name), "shop", "shop-prod")


def problem(chart: Chart, body: Object, version: str) -> str | None:
    """Return why Kubernetes or an operator would refuse an object."""
    if body["kind"] not in CRDS:
        return chart.problem(body, version)
    problems = [error.message for error in Draft202012Validator(CRDS[body["kind"]]).iter_errors(body)]
    return problems[0] if problems else None


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", ALL_VALUES)
def test_kubernetes_accepts_each_values_file(chart: Chart, name: str, version: str) -> None:
    problems = {body["metadata"]["name"]: problem(chart, body, version) for body in release(chart, name)}
    assert {key: text for key, text in problems.items() if text} == {}


@pytest.mark.parametrize("name", ALL_VALUES)
def test_each_values_file_holds_the_policies_and_is_linted(chart: Chart, name: str) -> None:
    assert violations(release(chart, name)) == []
    values = {} if name == "default" else read_values(name)
    assert [message for message in chart.lint(values) if message["severity"] > 1] == []


@settings(max_examples=max(10, settings().max_examples // 2))
@given(drawn=releases())
def test_random_values_hold_the_policies(chart: Chart, drawn: tuple[dict[str, Any], str, str]) -> None:
    values, name, namespace = drawn
    objects = chart.render(values, name, namespace)
    assert violations(objects) == []
    assert [text for body in objects if (text := problem(chart, body, NEWEST))] == []
    assert {body["metadata"]["namespace"] for body in objects} <= {namespace}
    if values.get("stopped"):
        assert {workload.body["spec"].get("replicas") for workload in workloads(objects, "Deployment")} <= {0}
        assert of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject") == []
    for workload in workloads(objects):
        found = Settings(**read_variables(workload.variables))
        wanted = Settings(**values.get("settings", {}))
        assert {n: getattr(found, n) for n in set(Settings.model_fields) - OWN} == {
            n: getattr(wanted, n) for n in set(Settings.model_fields) - OWN
        }
        assert values.get("env", {}).items() <= workload.variables.items()


def edit(*path: str | int, value: object) -> Callable[[list[Object]], None]:
    """Return a change of the server's Deployment; None removes the field."""

    def change(objects: list[Object]) -> None:
        part: Any
        (part,) = [body for body in of_kind(objects, "Deployment") if body["metadata"]["name"] == "shop-server"]
        for step in path[:-1]:
            part = part[step]
        if value is None:
            del part[path[-1]]
        else:
            part[path[-1]] = value

    return change


def remove(kind: str) -> Callable[[list[Object]], None]:
    """Return a change that removes all objects of a kind."""

    def change(objects: list[Object]) -> None:
        objects[:] = [body for body in objects if body["kind"] != kind]

    return change


def widen(objects: list[Object]) -> None:
    """Let everybody in."""
    of_kind(objects, "NetworkPolicy")[0]["spec"]["ingress"][0]["from"] = []


def close(objects: list[Object]) -> None:
    """Close the port of the server."""
    of_kind(objects, "NetworkPolicy")[0]["spec"]["ingress"][0]["ports"] = [{"port": "grpc"}]


POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)
BREACHES: list[tuple[str, Callable[[list[Object]], None]]] = [
    ("pods_are_restricted", edit(*POD, "securityContext", "runAsUser", value=0)),
    ("pods_are_restricted", edit(*CONTAINER, "securityContext", "readOnlyRootFilesystem", value=False)),
    ("pods_are_restricted", edit(*CONTAINER, "securityContext", "capabilities", value={"add": ["NET_ADMIN"]})),
    ("pods_are_restricted", edit(*POD, "hostNetwork", value=True)),
    ("pods_are_restricted", edit(*POD, "volumes", 0, value={"name": "state", "hostPath": {"path": "/"}})),
    ("writable_paths_have_volumes", edit(*CONTAINER, "volumeMounts", 0, "readOnly", value=True)),
    ("deployments_have_probes", edit(*CONTAINER, "livenessProbe", value=None)),
    ("deployments_have_probes", edit(*CONTAINER, "readinessProbe", "httpGet", "path", value="/healthz")),
    ("containers_have_limits", edit(*CONTAINER, "resources", "limits", value={})),
    ("deployments_have_budgets", remove("PodDisruptionBudget")),
    ("nothing_is_secret", edit(*CONTAINER, "env", 0, value={"name": "SKEWLESS_REDIS_URL", "value": "redis://h"})),
    ("nothing_is_secret", edit(*CONTAINER, "env", 0, value={"name": "AWS_REGION", "value": "redis://u:p@h"})),
    ("names_fit", edit("metadata", "name", value="shop-" + "x" * 60)),
    ("selectors_match_one_workload", edit(*POD[:2], "metadata", "labels", "app.kubernetes.io/component", value="x")),
    ("autoscalers_own_the_replicas", edit("spec", "replicas", value=3)),
    ("variables_are_settings", edit(*CONTAINER, "env", 0, "name", value="SKEWLESS_PROT")),
    ("variables_are_settings", edit(*CONTAINER, "env", 0, value={"name": "SKEWLESS_MAX_BATCH", "value": "many"})),
    ("commands_exist", edit(*CONTAINER, "args", value=["serve", "--rope", "x", "--repo", "/srv/project"])),
    ("ports_fit", edit(*CONTAINER, "ports", 0, "name", value="web")),
    ("ports_fit", edit(*CONTAINER, "ports", 0, "containerPort", value=8081)),
    ("ports_fit", close),
    ("network_is_closed", widen),
    ("servers_have_time_to_drain", edit(*POD, "terminationGracePeriodSeconds", value=30)),
    ("images_do_not_move", edit(*CONTAINER, "image", value="registry.example.com:5000/server")),
]


@pytest.mark.parametrize(("name", "breach"), BREACHES, ids=[name for name, _ in BREACHES])
def test_each_policy_sees_its_breach(
    high_availability: list[Object], name: str, breach: Callable[[list[Object]], None]
) -> None:
    objects = copy.deepcopy(high_availability)
    breach(objects)
    (check,) = [check for check in POLICIES if check.__name__ == name]
    assert list(check(objects)) != []


@pytest.fixture(scope="module")
def high_availability(chart: Chart) -> list[Object]:
    return release(chart, "high-availability")


def test_each_policy_has_a_breach() -> None:
    assert {check.__name__ for check in POLICIES} == {name for name, _ in BREACHES}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"settings": {"max_bach": 5}}, "at '/settings': additional properties 'max_bach' not allowed"),
        ({"settings": {"max_batch": "many"}}, "at '/settings/max_batch': got string, want integer"),
        ({"settings": {"redis_url": "redis://h"}}, "additional properties 'redis_url' not allowed"),
        ({"settings": {"auth": False}}, "at '/settings/auth': got boolean, want string"),
        ({"secretKeys": ["SKEWLESS_PORT"]}, "'SKEWLESS_PORT' does not match pattern"),
        ({"server": {"replicas": 0}}, "at '/server/replicas': minimum: got 0, want 1"),
        ({"server": {"resources": {"limits": {"memory": None}}}}, "limits': missing property 'memory'"),
        ({"networkPolicy": {"clients": []}}, "at '/networkPolicy/clients': minItems: got 0, want 1"),
        ({"images": {"jobs": "registry:5000/jobs"}}, "at '/images/jobs': 'registry:5000/jobs' does not match"),
        ({"images": {"jobs": "jobs:latest"}}, 'value images.jobs: has a tag that moves (got "jobs:latest"). Fix: name'),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "value env: may not contain secrets (got"),
        ({"server": {"autoscaling": {"min": 9}}}, "value server.autoscaling.min: is greater than max (got 9). Fix:"),
        (
            {"server": {"resources": {"requests": {"memory": "9Gi"}}}},
            'value server.resources.requests.memory: is more than the limit (got "9Gi"). Fix: lower it, or raise',
        ),
        (
            {"jobs": {"resources": {"requests": {"cpu": "1001m"}, "limits": {"cpu": "1"}}}},
            'value jobs.resources.requests.cpu: is more than the limit (got "1001m"). Fix: lower it, or raise',
        ),
        ({"tolerations": [{"value": "x"}]}, 'value tolerations[0].key: is missing (got {"value":"x"}). Fix: name'),
        (
            {"tolerations": [{"key": "a"}, {"key": "b", "operator": "Exists", "value": "x"}]},
            'value tolerations[1].value: does not go with operator Exists (got "x"). Fix: remove',
        ),
        (
            {"tolerations": [{"key": "a", "tolerationSeconds": 3}]},
            "value tolerations[0].tolerationSeconds: needs the effect NoExecute (got {",
        ),
        (
            {"networkPolicy": {"clients": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}},
            "value networkPolicy.clients[0]: has addresses and a selector (got {",
        ),
        ({"networkPolicy": {"clients": [{"ipBlock": {"cidr": "10.0.0/8"}}]}}, "'10.0.0/8' does not match pattern"),
        ({"nodeSelector": {"A.B/c": "d"}}, "'A.B/c' does not match pattern"),
        ({"state": {"size": "8Gi"}}, 'value state.size: is not larger than the cache of the storage (got "8Gi"). Fix:'),
    ],
)
def test_wrong_values_are_refused_with_their_place(chart: Chart, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartError) as refused:
        chart.render(values)
    assert message in str(refused.value)


def test_the_schema_has_the_settings_of_this_release() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run `python -m tools.chart`"
    assert set(Settings.model_fields) >= OWN


def test_the_chart_is_that_of_this_release() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (about["version"], about["appVersion"]) == (__version__, __version__)


def test_a_stopped_project_has_no_pods(chart: Chart) -> None:
    objects = chart.render({**read_values("high-availability"), "stopped": True})
    assert {workload.body["spec"]["replicas"] for workload in workloads(objects, "Deployment")} == {0}


def test_certificates_come_from_their_secret(chart: Chart) -> None:
    objects = chart.render({"server": {"tlsSecret": "tls"}, "monitoring": {"services": True}}, "shop", "prod")
    assert violations(objects) == []
    (server,) = [workload for workload in workloads(objects) if workload.component == "server"]
    schemes = {
        server.container[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert schemes == {"HTTPS"}
    assert (server.variables["SKEWLESS_TLS_CERT"], server.mounts["tls"]) == ("/tls/tls.crt", "/tls")
    endpoint = of_kind(objects, "ServiceMonitor")[0]["spec"]["endpoints"][0]
    assert (endpoint["scheme"], endpoint["tlsConfig"]["serverName"]) == ("https", "shop-server.prod.svc")


def test_the_jobs_of_a_release_run_before_its_pods_in_order(chart: Chart) -> None:
    objects = chart.render({"jobs": {"apply": True, "backfill": True}})
    hooks = {body["metadata"]["name"]: body["metadata"]["annotations"] for body in of_kind(objects, "Job")}
    assert {hook["helm.sh/hook"] for hook in hooks.values()} == {"pre-install,pre-upgrade"}
    assert sorted(hooks, key=lambda name: int(hooks[name]["helm.sh/hook-weight"])) == [
        "skewless-apply",
        "skewless-backfill",
    ]
    assert of_kind(chart.render({"jobs": {"apply": False}}), "Job") == []
