"""The constraints under which a model is trained: which features may only raise or lower it, and which may interact.

They are parameters of the libraries, by index of the feature. Here they may also be by name, so that a change of the
service cannot move them to another feature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from skewless.contract.errors import DefinitionError
from skewless.contract.spec import ModelSpec

# LightGBM knows several names of one parameter; the first is that of XGBoost, too.
_MONOTONE = {"sklearn": ("monotonic_cst",), "lightgbm": ("monotone_constraints", "monotone_constraint", "mc")}
_INTERACTIONS = {"sklearn": "interaction_cst"}
_NUMBER = re.compile(r"-?\d+")
_PAIR = re.compile(r"(\d+)\s*:\s*(-?\d+)")
_GROUP = re.compile(r"\[([^\[\]]*)\]")


def index_constraints(spec: ModelSpec, names: Sequence[str]) -> ModelSpec:
    """Return a spec whose constraints are by index, in the form that its library reads; others pass unchanged.

    Args:
        names: of the features, in order.

    Raises:
        DefinitionError: a constraint names an unknown feature.
    """
    params = dict(spec.params)
    for name in _monotone_names(spec):
        if isinstance(params.get(name), Mapping):
            directions = {_find(spec, name, names, feature): int(way) for feature, way in params[name].items()}
            params[name] = [directions.get(i, 0) for i in range(len(names))]
        if spec.algorithm == "xgboost" and isinstance(params.get(name), list):
            # XGBoost's Python takes no lists of numbers, and a spec has no tuples: only text is left.
            params[name] = f"({','.join(map(str, params[name]))})"
    name = _interaction_name(spec)
    groups = params.get(name)
    if isinstance(groups, list) and any(isinstance(feature, str) for group in groups for feature in group):
        params[name] = [[_find(spec, name, names, feature) for feature in group] for group in groups]
    if spec.algorithm == "xgboost" and isinstance(params.get(name), list):
        params[name] = str(params[name])
    return replace(spec, params=params)


def describe_constraints(spec: ModelSpec, names: Sequence[str]) -> dict[str, Any]:
    """Return the constraints by feature: ``monotone``, 1 or -1 by name, and ``interactions``, groups of names.

    Features that are not constrained are absent; ``interactions`` is a text if the library names a rule instead of
    groups. Empty without constraints.

    Args:
        names: of the features, in order.
    """
    params, result = index_constraints(spec, names).params, dict[str, Any]()
    for name in _monotone_names(spec):
        monotone = {feature: way for feature, way in zip(names, _read_ways(params.get(name)), strict=False) if way}
        if monotone:
            result["monotone"] = monotone
    groups = params.get(_interaction_name(spec))
    if isinstance(groups, str) and "[" in groups:
        groups = [[int(number) for number in _NUMBER.findall(group)] for group in _GROUP.findall(groups)]
    if groups:
        result["interactions"] = groups if isinstance(groups, str) else [[names[i] for i in group] for group in groups]
    return result


def constraint_rows(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the constraints of a package's training, each with its features.

    >>> constraint_rows({"constraints": {"monotone": {"age": -1}, "interactions": [["age", "city"]]}})
    [('age', 'may only lower the margin'), ('age, city', 'interact only with each other')]
    """
    constraints = about.get("constraints", {})
    rows = [
        (feature, f"may only {'raise' if way > 0 else 'lower'} the margin")
        for feature, way in constraints.get("monotone", {}).items()
    ]
    groups = constraints.get("interactions", [])
    if isinstance(groups, str):
        return [*rows, ("all", f"interactions: {groups}")]
    return rows + [(", ".join(group), "interact only with each other") for group in groups]


def _monotone_names(spec: ModelSpec) -> Sequence[str]:
    return _MONOTONE.get(spec.algorithm, _MONOTONE["lightgbm"][:1])


def _interaction_name(spec: ModelSpec) -> str:
    return _INTERACTIONS.get(spec.algorithm, "interaction_constraints")


def _read_ways(value: Any) -> list[int]:  # noqa: ANN401 - a parameter of a library
    """Return the direction of each feature, from the first to the last that the parameter has."""
    if not isinstance(value, str):
        return [int(way) for way in value or ()]
    # LightGBM's "1,0,-1", XGBoost's and CatBoost's "(1,0,-1)", or CatBoost's "0:1,2:-1".
    pairs = {int(feature): int(way) for feature, way in _PAIR.findall(value)}
    if pairs:
        return [pairs.get(i, 0) for i in range(max(pairs) + 1)]
    return [int(way) for way in _NUMBER.findall(value)]


def _find(spec: ModelSpec, parameter: str, names: Sequence[str], feature: str | int) -> int:
    if isinstance(feature, int) and 0 <= feature < len(names):
        return feature
    if feature in names:
        return names.index(str(feature))
    raise DefinitionError(
        f"model {spec.name!r} params {parameter!r}",
        "names an unknown feature",
        value=feature,
        fix=f"use one of {', '.join(names)}",
    )
