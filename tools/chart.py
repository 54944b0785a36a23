"""The files that are made from the Helm chart, and a renderer for machines without Helm.

    python -m tools.chart                                    writes the schema's settings and the bases of Kustomize
    python -m tools.chart high-availability shop shop-prod   prints a release: values, its name, its namespace

Helm is a library in the environment ``.venv-deploy`` of `make setup-deploy`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import yaml

from skewless.contract.settings import SECRETS, Settings

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-deploy" / "bin" / "python"
CHART = ROOT / "infra" / "deploy" / "helm" / "skewless"
KUSTOMIZE = ROOT / "infra" / "deploy" / "kustomize"
SCHEMA = CHART / "values.schema.json"
VALUES = tuple(sorted(path.stem for path in (CHART / "values").glob("*.yaml")))
# Read from the Secret: the first three always, the others if `secretKeys` names them.
REQUIRED = ("SKEWLESS_DATABASE_URL", "SKEWLESS_REDIS_URL", "SKEWLESS_STORAGE_URL")
_TOKEN = "SKEWLESS_ALERT_TOKEN"  # noqa: S105 - the name of a variable
# Settings that other values of the chart decide, or that make no sense in a pod.
OWN = {"clock", "drain_seconds", "grpc_port", "host", "metrics_host", "platform", "port", "scheduler_metrics_port"} | {
    "signing_key",
    "state",
    "threads",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "workers",
}
Object = dict[str, Any]


class ChartError(Exception):
    """Values that Helm refuses; the message is Helm's."""


class Chart:
    """The chart in the library of Helm, in a process of its own environment."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self._process = process
        self._log = log

    def render(self, values: Mapping[str, Any], name: str = "skewless", namespace: str = "skewless") -> list[Object]:
        """Return the objects of a release.

        Raises:
            ChartError: the values do not fit the schema or each other.
        """
        reply = self._ask({"values": values, "name": name, "namespace": namespace})
        if reply["error"] is not None:
            raise ChartError(reply["error"])
        objects: list[Object] = reply["objects"]
        return objects

    def problem(self, body: Object, version: str) -> str | None:
        """Return why a version of Kubernetes (``1.37``) would reject an object of its own kinds."""
        problem: str | None = self._ask({"validate": body, "version": version})["error"]
        return problem

    def lint(self, values: Mapping[str, Any]) -> list[Object]:
        """Return the messages of `helm lint --strict`; ``severity`` 2 and 3 are warnings and errors."""
        messages: list[Object] = self._ask({"lint": values})["messages"]
        return messages

    def _ask(self, request: Mapping[str, Any]) -> Object:
        try:
            reply: Object = self._exchange(json.dumps(request))
        except BaseException:
            self._process.kill()  # the next request would read the reply to this one
            raise
        return reply

    def _exchange(self, request: str) -> Any:  # noqa: ANN401 - any JSON
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"tools.chart_worker ended with {code} at {request}: {self._log.read()}")
        return json.loads(line)


@contextmanager
def open_chart() -> Iterator[Chart]:
    """Start the library; it ends with the block."""
    command = [str(PYTHON), "-m", "tools.chart_worker"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=ROOT) as process,
    ):
        yield Chart(process, log)


def read_values(name: str) -> Object:
    """Return the values of a file of the chart."""
    values: Object = yaml.safe_load((CHART / "values" / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def schema_text() -> str:
    """Return the schema of the values, with the settings and secrets of this release."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    fields = Settings.model_json_schema()["properties"]
    settings = {name: _setting(field) for name, field in fields.items() if name not in SECRETS | OWN}
    schema["properties"]["settings"]["properties"] = settings
    secrets = sorted({f"SKEWLESS_{name.upper()}" for name in SECRETS} - set(REQUIRED) | {_TOKEN})
    schema["properties"]["secretKeys"]["items"]["anyOf"][0]["enum"] = secrets
    return json.dumps(schema, indent=2) + "\n"


def _setting(field: Object) -> Object:
    """Return the schema of a setting without what Helm does not need; a missing value is none."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    kind = {name: value for name, value in kinds[0].items() if name not in {"title", "default"}}
    if kind.get("type") == "string" and "enum" not in kind:
        kind["minLength"] = 1  # an empty variable counts as unset
    return {"description": field["description"], **kind}


def release_text(chart: Chart, values: str, name: str = "skewless", namespace: str = "skewless") -> str:
    """Return the objects of a release as one YAML file."""
    head = f"# Made by `python -m tools.chart` from the Helm chart with values/{values}.yaml.\n"
    return head + yaml.safe_dump_all(chart.render(read_values(values), name, namespace), sort_keys=False, width=120)


def main() -> None:
    """Write the files, or print a release."""
    with open_chart() as chart:
        if len(sys.argv) > 1:
            sys.stdout.write(release_text(chart, *sys.argv[1:]))
            return
        SCHEMA.write_text(schema_text(), encoding="utf-8")
        for values in VALUES:
            (KUSTOMIZE / values / "release.yaml").write_text(release_text(chart, values), encoding="utf-8")


if __name__ == "__main__":
    main()
