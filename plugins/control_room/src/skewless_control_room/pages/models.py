"""The list of models: who answers for each, and how well?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from skewless.contract.errors import ScopeError
from skewless.contract.lifecycle import Watch
from skewless.contract.plain_record import PlainRecord
from skewless.contract.spec import ModelSpec
from skewless.operations.models.drift import latest_drift
from skewless.project import Project
from skewless_control_room.model_history import policy_text
from skewless_control_room.page import Page, Part, Query, Unknown, read_part
from skewless_control_room.stored_results import VersionQuality, judge_quality, read_quality

MOST_MODELS = 50
CHAMPION = "champion"


@dataclass(frozen=True, kw_only=True)
class DriftState(PlainRecord):
    """The last stored drift verdict of a model.

    Args:
        kind: ``good``, ``warning`` or ``unknown``.
        until_us: end of its window, UTC microseconds; None: never measured.
    """

    kind: str
    text: str
    until_us: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRow(PlainRecord):
    """A model of the list.

    Args:
        champion: its version; None: it has none, or it is unknown.
        since_us: when it became champion.
        traffic: the versions with their shares; empty: the champion answers all.
        in_rollout: whether a rollout is in progress.
        metric: the gate's; empty: the plan does not have the model.
        problem: why the row is not complete; empty: it is.
    """

    model: str
    champion: str | None = None
    since_us: int | None = None
    traffic: str = ""
    in_rollout: bool = False
    versions: int | None = None
    metric: str = ""
    quality: VersionQuality | None = None
    drift: DriftState | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelList(PlainRecord):
    """Some models in the order of their names.

    Args:
        total: number of models that the viewer may see.
        next_after: name after which the next page begins; empty: there is none.
        measured: whether any model has a stored quality.
    """

    rows: Sequence[ModelRow]
    total: int
    next_after: str


@dataclass(frozen=True, kw_only=True)
class ModelsPage(PlainRecord):
    """The answer."""

    models: Part[ModelList]


def read_models(project: Project, query: Query) -> ModelsPage:
    """Return a page of the models, each with its champion, its rollout and its last stored quality and drift."""
    after = query.text("after")
    return ModelsPage(models=read_part(lambda: _list(project, query.models, after)))


def check_model(project: Project, query: Query) -> str:
    """Return the model of a page's path, which the viewer may see.

    Raises:
        ScopeError: the viewer may not see it.
        RequestError: neither the plan nor the packages have it.
    """
    name = query.path["model"]
    if query.models is not None and name not in query.models:
        raise ScopeError("model", "is not one that you may see", value=name, fix="sign in with a key for it")
    specs, packaged = read_part(lambda: _specs(project)), read_part(project.packages.list_models)
    if isinstance(specs, Unknown) or isinstance(packaged, Unknown) or name in {*specs.value, *packaged.value}:
        return name
    project.applied.model(name)  # raises, with the known names
    return name


def read_drift(project: Project, model: str, champion: str | None, watch: Watch, now_us: int) -> DriftState:
    """Return the last stored drift verdict of a model; what is too old or of another version is unknown."""
    report = latest_drift(project, model)
    if report is None:
        return DriftState(kind="unknown", text="not measured yet")
    until_us = int(report["until_us"])
    if report["version"] != champion:
        return DriftState(kind="unknown", text=f"measured for version {report['version']} only", until_us=until_us)
    if now_us - until_us > watch.window.total_seconds() * 1e6:
        return DriftState(kind="unknown", text="the last window is too old", until_us=until_us)
    if report["verdict"] == "too_few_rows":
        return DriftState(kind="unknown", text=f"too few predictions ({report['rows']:,})", until_us=until_us)
    moved = f"; {' and '.join(report['moved'])} drifted" if report["moved"] else ""
    text = f"{len(report['drifted']):,} of {len(report['features']):,} features drifted{moved}"
    is_good = report["verdict"] == "steady" and not moved
    return DriftState(kind="good" if is_good else "warning", text=text, until_us=until_us)


def _list(project: Project, allowed: frozenset[str] | None, after: str) -> ModelList:
    specs = _specs(project)
    names = sorted({*specs, *project.packages.list_models()})
    names = [name for name in names if allowed is None or name in allowed]
    left = [name for name in names if name > after]
    shown = left[:MOST_MODELS]
    now_us = project.clock.now_us()
    rows = [_row(project, name, specs.get(name), now_us) for name in shown]
    return ModelList(rows=rows, total=len(names), next_after=shown[-1] if len(left) > len(shown) else "")


def _specs(project: Project) -> dict[str, ModelSpec]:
    return {spec.name: spec for spec in project.applied.models}


def _row(project: Project, name: str, spec: ModelSpec | None, now_us: int) -> ModelRow:
    row = read_part(lambda: _read_row(project, name, spec, now_us))
    return ModelRow(model=name, problem=row.unknown) if isinstance(row, Unknown) else row.value


def _read_row(project: Project, name: str, spec: ModelSpec | None, now_us: int) -> ModelRow:
    policy = project.store.traffic.get(name)
    last = next(project.store.aliases.read_latest_first(name, CHAMPION, most=1), None)
    champion = policy.champion if policy is not None else last.to if last is not None else None
    row = ModelRow(
        model=name,
        champion=champion,
        since_us=last.at_us if last is not None and last.to == champion else None,
        traffic="" if policy is None or policy.challenger is None else policy_text(policy),
        in_rollout=policy is not None and policy.challenger is not None,
        versions=len(project.packages.list_versions(name)),
    )
    if spec is None:
        return replace(row, problem="not in the applied plan")
    return replace(
        row,
        metric=spec.gate.metric,
        quality=judge_quality(read_quality(project, name), champion, spec.watch, now_us),
        drift=read_drift(project, name, champion, spec.watch, now_us),
    )


PAGE = Page(
    path="/models",
    question="Who answers, and how well?",
    template="models.html",
    read=read_models,
    menu="Models",
    live_s=4,
)
