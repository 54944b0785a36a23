"""Random values that the schema of the chart allows."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tools.chart import SCHEMA

_EXACT = 2**53  # Helm reads numbers as float64
_LONG = 20
_HOSTS = ("kafka", "*.shop.com", "10.0.0.0/8", "fe80::1")
_BLOCKS = ({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidr": "2001:db8::/32"}, {"cidr": "0.0.0.0/0"})
# The kubelet cannot give a process other characters.
_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_VARIABLES = st.sampled_from(["AWS_REGION", "OTEL_SERVICE_NAME", "SKEWLESS_LOG_LEVEL"])
_LABELS = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@cache
def root() -> dict[str, Any]:
    """Return the schema of the values."""
    schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return schema


def releases() -> SearchStrategy[tuple[dict[str, Any], str, str]]:
    """Return values, the name of a release, and a namespace."""
    names = st.from_regex(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?", fullmatch=True)
    return st.tuples(values_of(root()).map(_fit), names, names)


def _fit(values: dict[str, Any]) -> dict[str, Any]:
    """Return values that the settings accept, and that fit each other, as templates/checks.yaml demands."""
    own = values.get("settings", {})
    own.pop("storage_cache_gb", None)
    if "sink_hosts" in own:
        own["sink_hosts"] = [_HOSTS[len(drawn) % len(_HOSTS)] for drawn in own["sink_hosts"]]
    values.get("state", {}).pop("size", None)
    for outer, inner in (("server", "autoscaling"), ("stream", "keda")):
        scaling = values.get(outer, {}).get(inner, {})
        if scaling.keys() & {"min", "max"}:
            scaling["min"], scaling["max"] = sorted((scaling.get("min", 1), scaling.get("max", 1_000)))
    for name in ("server", "stream", "scheduler", "jobs"):
        _fit_resources(values.get(name, {}).get("resources", {}))
    for toleration in values.get("tolerations", []):
        _fit_toleration(toleration)
    for peer in (peer for name in ("clients", "monitoring") for peer in values.get("networkPolicy", {}).get(name, [])):
        if "ipBlock" in peer:
            drawn = dict(peer)
            peer.clear()
            peer["ipBlock"] = _BLOCKS[len(drawn) % len(_BLOCKS)]
    return values


def _fit_resources(resources: dict[str, Any]) -> None:
    for what, limit in resources.get("limits", {}).items():
        requests = resources["requests"]
        requests[what], resources["limits"][what] = sorted((requests[what], limit), key=_amount)


def _amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(\D*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 0.001, "Mi": 1, "Gi": 1024}[unit]


def _fit_toleration(toleration: dict[str, Any]) -> None:
    if "key" not in toleration:
        toleration["operator"] = "Exists"
    if toleration.get("operator") == "Exists":
        toleration.pop("value", None)
    if "tolerationSeconds" in toleration:
        toleration["effect"] = "NoExecute"


def values_of(schema: dict[str, Any]) -> SearchStrategy[Any]:
    """Return the values that a schema allows; for the keywords of the chart."""
    if "$ref" in schema:
        return values_of(root()["definitions"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of([values_of(part) for part in schema["anyOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    strategy: SearchStrategy[Any] = _BY_TYPE[schema["type"]](schema)
    return strategy


def _object(schema: dict[str, Any]) -> SearchStrategy[Any]:
    if "propertyNames" in schema:
        names = _VARIABLES if "SKEWLESS" in schema["propertyNames"]["pattern"] else _LABELS
        return st.dictionaries(names, values_of(schema["additionalProperties"]), max_size=2)
    parts = {name: values_of(part) for name, part in schema.get("properties", {}).items() if name != "global"}
    required = schema.get("required", [])
    objects = st.fixed_dictionaries(
        {name: parts[name] for name in required},
        optional={name: part for name, part in parts.items() if name not in required},
    )
    return objects.filter(lambda value: len(value) >= schema.get("minProperties", 0))


def _array(schema: dict[str, Any]) -> SearchStrategy[Any]:
    unique = json.dumps if schema.get("uniqueItems") else None
    return st.lists(values_of(schema["items"]), min_size=schema.get("minItems", 0), max_size=3, unique_by=unique)


def _integer(schema: dict[str, Any]) -> SearchStrategy[int]:
    lowest = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    return st.integers(lowest, schema.get("maximum", _EXACT))


def _number(schema: dict[str, Any]) -> SearchStrategy[float]:
    lowest, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    return st.floats(
        above if lowest is None else lowest,
        schema.get("maximum"),
        exclude_min=lowest is None,
        allow_infinity=False,
        allow_nan=False,
    )


def _string(schema: dict[str, Any]) -> SearchStrategy[str]:
    if "pattern" not in schema:
        return st.text(_CHARACTERS, min_size=schema.get("minLength", 0), max_size=_LONG)
    texts = st.from_regex(
        schema["pattern"], fullmatch=True, alphabet=st.characters(codec="ascii", categories=["L", "N", "P"])
    )
    return texts.filter(lambda text: len(text) <= schema.get("maxLength", 63) and not text.endswith(("\n", ":latest")))


_BY_TYPE: dict[str, Any] = {
    "object": _object,
    "array": _array,
    "integer": _integer,
    "number": _number,
    "string": _string,
    "boolean": lambda _: st.booleans(),
}
