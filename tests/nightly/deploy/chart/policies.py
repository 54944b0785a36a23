"""Policies of every release; each yields a line for each violation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import typer

from skewless.cli import create_app as create_cli
from skewless.contract.errors import SkewlessError
from skewless.contract.settings import SECRETS, Settings, read_variables
from skewless.serving.app import ServingContext, create_app
from skewless.serving.metrics.metrics import Metrics
from tests.nightly.deploy.chart.release import Object, of_kind, selected, strings, workloads

Policy = Callable[[list[Object]], Iterator[str]]
POLICIES: list[Policy] = []
# Of the policy "restricted"; https://kubernetes.io/docs/concepts/security/pod-security-standards
_VOLUMES = {"configMap", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_PROGRAM_VARIABLES = {"SKEWLESS_LOG", "SKEWLESS_LOG_LEVEL", "SKEWLESS_ALERT_TOKEN"}
_SECRET_NAMES = {f"SKEWLESS_{name.upper()}" for name in SECRETS} | {"SKEWLESS_ALERT_TOKEN"}
_OTHER_VARIABLES = re.compile(r"HOME|(AWS|AZURE|GOOGLE|OTEL)_\w+")
_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@|AKIA[0-9A-Z]{16}|-----BEGIN|\bsk_\w+_")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SERVER_ENDS_S = 30  # docs/operations.md: the requests that have begun


def policy(check: Policy) -> Policy:
    """Add a policy to the list."""
    POLICIES.append(check)
    return check


def violations(objects: list[Object]) -> list[str]:
    """Return the lines of all policies."""
    return [f"{check.__name__}: {line}" for check in POLICIES for line in check(objects)]


@policy
def pods_are_restricted(objects: list[Object]) -> Iterator[str]:
    """Yield pods that the policy "restricted" refuses, and pods with a root that can be written."""
    for workload in workloads(objects):
        pod, inner, outer = workload.pod, workload.container["securityContext"], workload.pod["securityContext"]
        facts = {
            "user": outer["runAsNonRoot"] is True and outer["runAsUser"] > 0,
            "seccomp": outer["seccompProfile"] == {"type": "RuntimeDefault"},
            "privileges": inner["allowPrivilegeEscalation"] is False and not inner.get("privileged"),
            "capabilities": inner["capabilities"] == {"drop": ["ALL"]},
            "root": inner["readOnlyRootFilesystem"] is True,
            "host": not [name for name in pod if name.startswith("host")],
            "host ports": not [port for port in workload.container.get("ports", []) if "hostPort" in port],
            "volumes": all(set(volume) - {"name"} <= _VOLUMES for volume in pod["volumes"]),
            "token": pod["automountServiceAccountToken"] is False,
            "service links": pod["enableServiceLinks"] is False,
        }
        yield from (f"{workload.name}: {fact}" for fact, holds in facts.items() if not holds)


@policy
def writable_paths_have_volumes(objects: list[Object]) -> Iterator[str]:
    """Yield paths that the program writes, and that no volume holds."""
    for workload in workloads(objects):
        mounted = [mount["mountPath"] for mount in workload.container["volumeMounts"] if not mount.get("readOnly")]
        if {volume["name"] for volume in workload.pod["volumes"]} != set(workload.mounts):
            yield f"{workload.name}: volumes and mounts differ"
        repo = workload.container["args"][workload.container["args"].index("--repo") + 1]
        for path in (workload.variables["HOME"], "/tmp", workload.variables["SKEWLESS_STATE"], f"{repo}/.skewless"):  # noqa: S108
            if not any(f"{path}/".startswith(f"{place}/") for place in mounted):
                yield f"{workload.name}: {path} cannot be written"
        for name, path in workload.variables.items():
            if re.search(r"_(CERT|KEY)$", name) and path.split("/")[1] not in workload.mounts:
                yield f"{workload.name}: {name} is not in a volume"


@policy
def deployments_have_probes(objects: list[Object]) -> Iterator[str]:
    """Yield probes that are missing, or ask a route or port that does not exist."""
    for workload in workloads(objects, "Deployment"):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            get = workload.container.get(name, {}).get("httpGet")
            if get is None:
                yield f"{workload.name}: no {name}"
            elif get["port"] not in workload.ports:
                yield f"{workload.name}: {name} asks the port {get['port']}"
            elif f"GET {get['path']}" not in (server_routes() if workload.component == "server" else {"GET /metrics"}):
                yield f"{workload.name}: {name} asks {get['path']}"


@policy
def containers_have_limits(objects: list[Object]) -> Iterator[str]:
    """Yield containers without requests, or without a limit of memory."""
    for workload in workloads(objects):
        resources = workload.container["resources"]
        if not (set(resources["requests"]) == {"cpu", "memory"} and "memory" in resources["limits"]):
            yield f"{workload.name}: {resources}"
        sizes = [volume["emptyDir"] for volume in workload.pod["volumes"] if "emptyDir" in volume]
        if not all("sizeLimit" in size for size in sizes):
            yield f"{workload.name}: a volume without a limit"


@policy
def deployments_have_budgets(objects: list[Object]) -> Iterator[str]:
    """Yield Deployments whose pods may all be evicted at once, or whose last pod holds up a node."""
    budgets = of_kind(objects, "PodDisruptionBudget")
    for workload in workloads(objects, "Deployment"):
        found = [body for body in budgets if body["spec"]["selector"] == workload.body["spec"]["selector"]]
        if [body["spec"]["maxUnavailable"] for body in found] != [1]:
            yield workload.name


@policy
def nothing_is_secret(objects: list[Object]) -> Iterator[str]:
    """Yield objects and variables with a secret in them."""
    yield from (f"{body['kind']} {body['metadata']['name']}" for body in of_kind(objects, "Secret"))
    for workload in workloads(objects):
        yield from (f"{workload.name}: value of {name}" for name in workload.variables if name in _SECRET_NAMES)
    for body in objects:
        if any(map(_PASSWORD.search, strings(body))):
            yield f"{body['kind']} {body['metadata']['name']}: a text like a password"


@policy
def names_fit(objects: list[Object]) -> Iterator[str]:
    """Yield names and labels that Kubernetes refuses, and names that occur twice."""
    seen = set()
    for body in objects:
        name, labels = body["metadata"]["name"], body["metadata"]["labels"]
        key = (body["kind"], name)
        if key in seen or not _NAME.fullmatch(name):
            yield f"name {key}"
        seen.add(key)
        yield from (f"{key}: label {label}" for label in labels.values() if not _LABEL.fullmatch(label))
    for workload in workloads(objects):
        names = [workload.container["name"], *workload.ports, *workload.mounts]
        yield from (f"{workload.name}: {name}" for name in names if not _NAME.fullmatch(name))


@policy
def selectors_match_one_workload(objects: list[Object]) -> Iterator[str]:
    """Yield selectors that find no pods, or those of several workloads."""
    for body in of_kind(objects, "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = body["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        if len(selected(objects, selector.get("matchLabels", selector))) != 1:
            yield f"{body['kind']} {body['metadata']['name']}"
    for body in of_kind(objects, "ServiceMonitor"):
        labels = body["spec"]["selector"]["matchLabels"].items()
        services = [s for s in of_kind(objects, "Service") if labels <= s["metadata"]["labels"].items()]
        ports = [{port["name"] for port in service["spec"]["ports"]} for service in services]
        asked = {endpoint["port"] for endpoint in body["spec"]["endpoints"]}
        if len(ports) != 1 or not asked <= ports[0]:
            yield f"ServiceMonitor {body['metadata']['name']}"


@policy
def autoscalers_own_the_replicas(objects: list[Object]) -> Iterator[str]:
    """Yield autoscalers without a Deployment, or with one whose replicas each upgrade would reset."""
    deployments = {body["metadata"]["name"]: body["spec"] for body in of_kind(objects, "Deployment")}
    for body in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = body["spec"]["scaleTargetRef"]["name"]
        if target not in deployments or "replicas" in deployments[target]:
            yield f"{body['kind']} of {target}"
        deployments.pop(target, None)
    yield from (f"Deployment {name}: no replicas" for name, spec in deployments.items() if "replicas" not in spec)


@policy
def variables_are_settings(objects: list[Object]) -> Iterator[str]:
    """Yield variables that skewless does not read, and values that it refuses."""
    known = {f"SKEWLESS_{name.upper()}" for name in Settings.model_fields} | _PROGRAM_VARIABLES
    for workload in workloads(objects):
        names = [entry["name"] for entry in workload.container["env"]]
        yield from (f"{workload.name}: {name}" for name in names if not (name in known or _OTHER_VARIABLES.match(name)))
        if len(set(names)) < len(names):
            yield f"{workload.name}: a variable has two values"
        secret = [
            name
            for name, reference in workload.references.items()
            if reference.get("secretKeyRef", {"key": name})["key"] != name
        ]
        yield from (f"{workload.name}: {name} is another key" for name in secret)
        try:
            Settings(**read_variables(workload.variables))
        except (ValueError, SkewlessError) as error:
            yield f"{workload.name}: {error}"


@policy
def commands_exist(objects: list[Object]) -> Iterator[str]:
    """Yield command lines that cannot be typed."""
    for workload in workloads(objects):
        verb, *words = workload.container["args"]
        try:
            commands()[verb].make_context(verb, words)
        except (KeyError, typer.Exit, Exception) as error:  # noqa: BLE001 - click's errors have no common root
            yield f"{workload.name}: {verb} {words}: {error}"


@policy
def ports_fit(objects: list[Object]) -> Iterator[str]:
    """Yield Services and network policies of ports that no container has, and ports that no setting opens."""
    for body in of_kind(objects, "Service"):
        (workload,) = selected(objects, body["spec"]["selector"])
        targets = [port["targetPort"] for port in body["spec"]["ports"]]
        yield from (f"Service {body['metadata']['name']}: {port}" for port in targets if port not in workload.ports)
    for body in of_kind(objects, "NetworkPolicy"):
        (workload,) = selected(objects, body["spec"]["podSelector"]["matchLabels"])
        rules = body["spec"].get("ingress", [])
        named = {port["port"] for rule in rules for port in rule["ports"]}
        if named != set(workload.ports):
            yield f"NetworkPolicy {body['metadata']['name']}: {named}"
    for workload in workloads(objects, "Deployment"):
        args, variables = workload.container["args"], workload.variables
        opened = {
            "server": [variables.get("SKEWLESS_PORT"), variables.get("SKEWLESS_GRPC_PORT")],
            "stream": [args[-1]],
            "scheduler": [variables.get("SKEWLESS_SCHEDULER_METRICS_PORT")],
        }
        if list(map(str, workload.ports.values())) != list(filter(None, opened[workload.component])):
            yield f"{workload.name}: {workload.ports}"
        if variables.get("SKEWLESS_HOST" if workload.component == "server" else "SKEWLESS_METRICS_HOST") != "0.0.0.0":  # noqa: S104
            yield f"{workload.name}: listens on loopback"


@policy
def network_is_closed(objects: list[Object]) -> Iterator[str]:
    """Yield workloads without a network policy, and rules that let everybody in. Without any policy: nothing."""
    policies = of_kind(objects, "NetworkPolicy")
    for workload in workloads(objects) if policies else []:
        labels = {"matchLabels": workload.labels}
        found = [body["spec"] for body in policies if body["spec"]["podSelector"] == labels]
        if [spec["policyTypes"] for spec in found] != [["Ingress", "Egress"]]:
            yield workload.name
        yield from (
            f"{workload.name}: a rule without peers or ports"
            for spec in found
            for rule in spec.get("ingress", [])
            if not (rule["from"] and all(rule["from"]) and rule["ports"])
        )


@policy
def servers_have_time_to_drain(objects: list[Object]) -> Iterator[str]:
    """Yield servers that are killed in their drain, or replaced before another one is ready."""
    for workload in workloads(objects, "Deployment"):
        if workload.component != "server":
            continue
        drain = float(workload.variables["SKEWLESS_DRAIN_SECONDS"])
        if workload.pod["terminationGracePeriodSeconds"] <= drain + _SERVER_ENDS_S:
            yield f"{workload.name}: grace"
        probe = workload.container["readinessProbe"]
        if drain <= probe["periodSeconds"] * probe["failureThreshold"]:
            yield f"{workload.name}: drains before it counts as not ready"
        if workload.body["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] != 0:
            yield f"{workload.name}: fewer servers during an update"


@policy
def images_do_not_move(objects: list[Object]) -> Iterator[str]:
    """Yield images whose tag may name another image tomorrow."""
    for workload in workloads(objects):
        image = str(workload.container["image"]).rpartition("/")[2]
        if not re.search(r"[:@]", image) or image.endswith(":latest"):
            yield f"{workload.name}: {image}"


@cache
def server_routes() -> frozenset[str]:
    """Return every ``GET`` route of the server."""
    nothing = cast("Any", None)
    models = cast("Any", SimpleNamespace(all=list))
    context = ServingContext(
        models=models, predictor=nothing, metrics=Metrics(), events=nothing, feedback=nothing, reload_seconds=1.0
    )
    return frozenset(
        f"GET {path}" for path, methods in create_app(context).openapi()["paths"].items() if "get" in methods
    )


@cache
def commands() -> dict[str, Any]:
    """Return the commands of the command line."""
    found: dict[str, Any] = getattr(typer.main.get_command(create_cli()), "commands")  # noqa: B009 - untyped
    return found
