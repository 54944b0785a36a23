"""How a view changes: its values against training by the last drift verdict, and its definition over applied plans."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from skewless.contract.errors import StalePlanError, StoreError
from skewless.contract.plain_record import PlainRecord, plain_value
from skewless.contract.plan import View
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.plans.applied_plan import read_plan_bodies
from skewless.operations.models.drift import latest_distributions, latest_drift
from skewless.workspace import Workspace

_MOST_PLANS, _MOST_LINES, _MOST_PLOTS = 10, 400, 4


@dataclass(frozen=True, kw_only=True)
class FeatureDrift(PlainRecord):
    """A feature of a view now, against the training data of a model; the last stored verdict.

    Args:
        feature: its name in the view.
        psi, limit: population stability index and its limit.
        nulls_trained, nulls_now: share of nulls.
        new: share of values outside of the training range.
    """

    feature: str
    drifted: bool
    psi: float | None
    limit: float | None
    nulls_trained: float | None
    nulls_now: float | None
    new: float | None


@dataclass(frozen=True, kw_only=True)
class FeatureDistribution(PlainRecord):
    """A feature in training and in the window of a drift verdict.

    Args:
        low, high: range of the training values.
        trained, now: share of all values in each bin of the range, from low to high; empty without values.
    """

    feature: str
    low: float
    high: float
    trained: list[float]
    now: list[float]


@dataclass(frozen=True, kw_only=True)
class ViewDrift(PlainRecord):
    """The last drift verdict of a model, for the features of one view.

    Args:
        verdict: of the model: ``drifted``, ``steady`` or ``too_few_rows``.
        since_us, until_us: the window, UTC microseconds.
        rows: number of predictions.
        distributions: of the features with the largest distance, at most four.
    """

    model: str
    version: str
    verdict: str
    since_us: int
    until_us: int
    rows: int
    features: list[FeatureDrift]
    distributions: list[FeatureDistribution]


def read_view_drift(project: Workspace, view: View | WindowView, model: str) -> ViewDrift | None:
    """Return the last drift verdict of a model for a view's features; None: there is none."""
    report = latest_drift(project, model)
    if report is None:
        return None
    try:
        return _decode_drift(report, view, latest_distributions(project, model))
    except (KeyError, TypeError, ValueError) as error:
        fix = f"run `skewless drift {model}`"
        raise StoreError(f"drift verdict of model {model!r}", "is corrupt in the database", fix=fix) from error


def _decode_drift(report: Mapping[str, Any], view: View | WindowView, latest: Mapping[str, Any] | None) -> ViewDrift:
    labels = {f"{view.name}__{column.name}": column.name for column in view.features}
    features = [
        FeatureDrift(
            feature=labels[item["name"]],
            drifted=item["drifted"],
            psi=item["distances"].get("psi"),
            limit=item["limits"].get("psi"),
            nulls_trained=item["null_share"][0],
            nulls_now=item["null_share"][1],
            new=item["new_share"],
        )
        for item in report["features"]
        if item["name"] in labels
    ]
    names = ("model", "version", "verdict", "since_us", "until_us", "rows")
    stored = latest["features"] if latest and latest["until_us"] == report["until_us"] else {}
    farthest = sorted(features, key=lambda item: (-(item.psi or 0.0), item.feature))
    distributions = [
        FeatureDistribution(feature=item.feature, **stored[f"{view.name}__{item.feature}"])
        for item in farthest
        if f"{view.name}__{item.feature}" in stored
    ]
    plain = {name: report[name] for name in names}
    return ViewDrift(**plain, features=features, distributions=distributions[:_MOST_PLOTS])


@dataclass(frozen=True, kw_only=True)
class DefinitionChange(PlainRecord):
    """A plan that added, changed or removed a view.

    Args:
        plan: its number.
        applied_us: UTC microseconds.
        diff: lines of the definition that begin with ``+``, ``-`` or a space; at most 400.
    """

    plan: int
    applied_us: int
    action: Literal["added", "changed", "removed"]
    diff: list[str]


@dataclass(frozen=True, kw_only=True)
class DefinitionHistory(PlainRecord):
    """The changes of a view's definition in some applied plans, latest first.

    Args:
        plans: number of plans that were compared.
        before: number for the next page; None: there are no earlier plans.
    """

    changes: list[DefinitionChange]
    plans: int
    before: int | None


def read_history(project: Workspace, name: str, *, before: int | None = None) -> DefinitionHistory:
    """Return the changes of a view's definition in ten applied plans.

    Args:
        name: of the view, without a hash.
        before: only plans with smaller numbers; None: the latest.

    Raises:
        StalePlanError: a plan is corrupt.
        StoreError: the database is unavailable.
    """
    # One plan more than the page shows is read, to compare the last one with it.
    bodies = read_plan_bodies(project.state, most=_MOST_PLANS + 1, before=before)
    stored = [(number, *_find_definition(number, body, name)) for number, body in bodies]
    has_more = len(stored) > _MOST_PLANS
    changes = []
    olds = [*(definition for _, _, definition in stored[1:]), None]
    for (number, applied_us, new), old in zip(stored[:_MOST_PLANS], olds, strict=False):
        if old != new:
            action: Literal["added", "changed", "removed"] = (
                "added" if old is None else "removed" if new is None else "changed"
            )
            diff = list(_diff(old, new))[:_MOST_LINES]
            changes.append(DefinitionChange(plan=number, applied_us=applied_us, action=action, diff=diff))
    compared = stored[:_MOST_PLANS]
    return DefinitionHistory(changes=changes, plans=len(compared), before=compared[-1][0] if has_more else None)


def _find_definition(number: int, body: Mapping[str, Any], view: str) -> tuple[int, Mapping[str, Any] | None]:
    """Return when a plan was applied, and its definition of a view; None: it has no such view."""
    try:
        views = [*body["plan"]["views"], *body["plan"].get("windows", ())]
        return int(body["applied_us"]), next((item for item in views if item["name"] == view), None)
    except (ValueError, KeyError, TypeError) as error:
        fix = "restore the database from a backup"
        raise StalePlanError(f"applied plan {number}", f"cannot be read: {error}", fix=fix) from error


def definition_lines(view: View | WindowView) -> list[str]:
    """Return a definition as indented JSON, in lines."""
    return _lines(json.loads(json.dumps(plain_value(asdict(view)))))


def _diff(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[str]:
    lines = difflib.unified_diff(_lines(old), _lines(new), n=2, lineterm="")
    # Its first two lines name files.
    return (line for i, line in enumerate(lines) if i > 1 and not line.startswith("@@"))


def _lines(definition: Mapping[str, Any] | None) -> list[str]:
    """Return indented JSON in lines; a text of several lines, such as code, has a line for each."""
    if definition is None:
        return []
    return json.dumps(definition, indent=2, ensure_ascii=False).replace("\\n", "\n").splitlines()
