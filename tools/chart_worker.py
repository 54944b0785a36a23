"""Renders the chart and validates objects of Kubernetes, one request a line, for the Python of ``.venv-deploy``.

A request is a JSON object; its reply is one, too, with ``error``: null, or the message of Helm or of the schema.

- ``values``, ``name``, ``namespace``: the reply has the rendered ``objects``;
- ``validate``, an object, and ``version`` of Kubernetes;
- ``lint``: values; the reply has the ``messages``.
"""

from __future__ import annotations

import json
import sys
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import helm_python
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

CHART = Path(__file__).parents[1] / "infra" / "deploy" / "helm" / "skewless"
_SCHEMAS = files("kubernetes_validate") / "kubernetes-json-schema"


def render(request: dict[str, Any]) -> dict[str, Any]:
    """Return the objects of a release, in the order of Helm."""
    try:
        _chart().validate_schema(request["values"])
        texts = _chart().render(request["values"], name=request["name"], namespace=request["namespace"])
    except helm_python.HelmError as error:
        return {"error": str(error)}
    manifests = [text for name, text in texts.items() if name.endswith(".yaml")]
    return {"error": None, "objects": [body for text in manifests for body in yaml.safe_load_all(text) if body]}


def validate(body: dict[str, Any], version: str) -> dict[str, Any]:
    """Return the first problem of an object for a version of Kubernetes, where unknown fields are problems."""
    group, _, number = body["apiVersion"].rpartition("/")
    kind = "-".join(filter(None, (body["kind"].lower(), group.partition(".")[0], number)))
    problems = [
        f"{'.'.join(map(str, error.path))}: {error.message}" for error in _validator(kind, version).iter_errors(body)
    ]
    return {"error": problems[0] if problems else None}


@cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


@cache
def _validator(kind: str, version: str) -> Draft202012Validator:
    schema, definitions = (
        Resource.from_contents(json.loads((_SCHEMAS / f"v{version}.0-local-strict" / f"{name}.json").read_text()))
        for name in (kind, "_definitions")
    )
    return Draft202012Validator(schema.contents, registry=definitions @ (schema @ Registry()))


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to a request."""
    if "validate" in request:
        return validate(request["validate"], request["version"])
    if "lint" in request:
        return {"error": None, "messages": helm_python.lint(CHART, request["lint"], strict=True)["messages"]}
    return render(request)


def main() -> None:
    """Reply to each line of stdin."""
    write = partial(print, flush=True)
    for line in sys.stdin:
        write(json.dumps(reply(json.loads(line))))


if __name__ == "__main__":
    main()
