"""The objects of a release, as its tests ask for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_][A-Za-z0-9_]*)\))")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A Deployment or a Job, with its one container."""

    body: Object

    @property
    def name(self) -> str:
        return f"{self.body['kind']} {self.body['metadata']['name']}"

    @property
    def component(self) -> str:
        return str(self.labels["app.kubernetes.io/component"])

    @property
    def template(self) -> Object:
        template: Object = self.body["spec"]["template"]
        return template

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    @property
    def pod(self) -> Object:
        pod: Object = self.template["spec"]
        return pod

    @property
    def container(self) -> Object:
        (container,) = self.pod["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def ports(self) -> dict[str, int]:
        """The ports of the container by name."""
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    @property
    def variables(self) -> dict[str, str]:
        """The variables with a value, as the kubelet gives them to the process."""
        values: dict[str, str] = {}
        for entry in self.container["env"]:
            if "value" in entry:
                values[entry["name"]] = _expand(entry["value"], values)
        return values

    @property
    def references(self) -> dict[str, Object]:
        """The variables that come from elsewhere."""
        return {entry["name"]: entry["valueFrom"] for entry in self.container["env"] if "valueFrom" in entry}

    @property
    def mounts(self) -> dict[str, str]:
        """The paths of the volumes by name."""
        return {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}


def _expand(text: str, values: Mapping[str, str]) -> str:
    """Return a value of a variable with ``$(NAME)`` and ``$$`` replaced."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else values.get(match[2], match[0])

    return _REFERENCE.sub(replace, text)


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Return the objects of some kinds."""
    return [body for body in objects if body["kind"] in kinds]


def workloads(objects: list[Object], *kinds: str) -> list[Workload]:
    """Return the Deployments and Jobs, or those of some kinds."""
    return [Workload(body=body) for body in of_kind(objects, *(kinds or ("Deployment", "Job")))]


def selected(objects: list[Object], labels: Mapping[str, str]) -> list[Workload]:
    """Return the workloads whose pods have some labels."""
    return [workload for workload in workloads(objects) if labels.items() <= workload.labels.items()]


def strings(value: object) -> Iterator[str]:
    """Return all texts of a JSON value, also the names of fields."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from (name, *strings(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value
