"""Compile a repo: read its Feast objects and model specs, return the plan and the specs; change nothing.

The on-demand views to register get an adapter, so that Feast computes what skewless does.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import textwrap
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, OnDemandFeatureView, StreamFeatureView
from feast.transformation.python_transformation import PythonTransformation

from skewless.contract.columns import Transform
from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import DefinitionError, SkewlessError
from skewless.contract.plan import FeaturePlan
from skewless.contract.policy_runner import compile_policy
from skewless.contract.spec import ALGORITHMS, ModelSpec
from skewless.contract.transforms import TransformRunner, input_dtype
from skewless.infra.definitions.compiler import array_calls
from skewless.infra.definitions.compiler.compiled_repo import CompiledRepo
from skewless.infra.definitions.compiler.decisions import compile_decisions
from skewless.infra.definitions.compiler.feast_settings import load_settings
from skewless.infra.definitions.compiler.repo_modules import CONFIG, list_repo_files, repo_modules
from skewless.infra.definitions.compiler.services import (
    check_event_transform,
    check_inputs,
    compile_request,
    compile_service,
    compile_transform,
    module_source,
)
from skewless.infra.definitions.compiler.views import compile_view
from skewless.infra.definitions.compiler.windows import compile_windows
from skewless.infra.platform.host.plugins import is_registered
from skewless.infra.platform.jobs.cron import cron_trigger

DEFINITIONS = "definitions"
MODELS = "models"
_ADAPTER = "_skewless_array_calls"
_FUTURE = "from __future__ import annotations\n"


def compile_repo(repo: Path) -> CompiledRepo:
    """Return what the repo's ``definitions.py`` and ``models.py`` declare.

    Raises:
        DefinitionError: a definition cannot be served exactly.
    """
    with repo_modules(repo):
        project = _project_name(repo)
        module = load_module(repo, DEFINITIONS)
        objects = _feast_objects(module)
        plan = _compile_plan(project, repo, objects)
        models = tuple(_compile_policy(spec, plan) for spec in _models(repo))
        decisions = compile_decisions(_decisions(repo), plan, models)
        files = list_repo_files(repo)
    for transform in plan.transforms:
        TransformRunner.from_plan(plan, transform).check()
    for window in plan.windows:
        check_event_transform(window)
    for spec in models:
        check_model(plan, spec)
    objects_to_register = tuple(
        _add_adapter(plan, plan.transform(item.name), item) if isinstance(item, OnDemandFeatureView) else item
        for item in objects
    )
    return CompiledRepo(
        plan=plan,
        models=models,
        feast_objects=objects_to_register,
        files=files,
        decisions=decisions,
    )


def check_model(plan: FeaturePlan, spec: ModelSpec) -> None:
    """Check a model against the plan: service, feature types, algorithm, group and cron expression.

    Raises:
        DefinitionError: the service is unknown, the algorithm not installed, a feature is bytes, the cron expression is
            invalid, or the group of a ranking model, or a sticky name of exploration, is neither a key nor a request
            field.
    """
    if spec.algorithm not in ALGORITHMS and not is_registered("skewless.trainers", spec.algorithm):
        raise DefinitionError(
            f"model {spec.name!r} algorithm",
            "is not installed",
            value=spec.algorithm,
            fix=f"use one of {', '.join(ALGORITHMS)}, or pip install 'skewless[{spec.algorithm}]', or the package that "
            "registers it in skewless.trainers",
        )
    part = plan.select_service(spec.service)
    names = [column.name for column in (*part.join_keys, *part.request)]
    if spec.group is not None and spec.group not in names:
        raise DefinitionError(
            f"model {spec.name!r} group",
            "is neither a key nor a request field of its service",
            value=spec.group,
            fix=f"use one of {', '.join(names)}",
        )
    if not names:
        raise DefinitionError(
            f"model {spec.name!r} service {spec.service!r}",
            "has neither join keys nor request fields, so all its predictions would be equal",
            fix="add a feature that has a key or a request field",
        )
    if spec.explore is not None:
        spec.explore.check_inputs(spec.name, names)
    if spec.retrain is not None:
        cron_trigger(f"retrain {spec.name}", spec.retrain)
    for ref in plan.service(spec.service).features:
        if plan.dtype(ref) == "bytes":
            raise DefinitionError(
                f"model {spec.name!r} feature {ref.label!r}",
                "is of type bytes, which models cannot read",
                fix="remove it from the feature service",
            )


def load_module(repo: Path, name: str) -> ModuleType:
    """Return a module of the repo; call inside ``repo_modules``.

    Raises:
        DefinitionError: the file is missing or fails to run; names file and line.
    """
    path = repo / f"{name}.py"
    if not path.exists():
        raise DefinitionError(
            f"file {path}", "does not exist", fix="pass --repo DIR, or start with `skewless init DIR`"
        )
    try:
        with warnings.catch_warnings():
            # Feast warns that its computation of stream feature views is experimental; we do not use it.
            warnings.filterwarnings("ignore", message="Stream feature views are experimental")
            return importlib.import_module(name)
    except SkewlessError:
        raise
    except Exception as error:
        raise DefinitionError(
            f"file {_find_line(error, repo) or path}",
            str(error) or type(error).__name__,
            fix="correct the definition there",
        ) from error


def _find_line(error: BaseException, repo: Path) -> str | None:
    if isinstance(error, SyntaxError) and error.filename is not None:  # None: the file is not text
        return f"{error.filename}:{error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(repo))]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def _project_name(repo: Path) -> str:
    path = repo / CONFIG
    if not path.exists():
        raise DefinitionError(
            f"file {path}", "does not exist", fix="pass --repo DIR, or start with `skewless init DIR`"
        )
    try:
        return str(load_settings(repo).project)
    except Exception as error:
        raise DefinitionError(f"file {path}", str(error), fix="correct the Feast configuration") from error


def _feast_objects(module: ModuleType) -> list[Any]:
    kinds = (Entity, FeatureView, OnDemandFeatureView, FeatureService)
    # One object may have several names in the module.
    objects = list({id(value): value for value in vars(module).values() if isinstance(value, kinds)}.values())
    seen: dict[tuple[bool, str], object] = {}
    for value in objects:
        if seen.setdefault((isinstance(value, Entity), value.name), value) is not value:
            raise DefinitionError(
                f"{type(value).__name__} {value.name!r}", "is defined twice", fix="rename or remove one of them"
            )
    return objects


def _compile_plan(project: str, repo: Path, objects: list[Any]) -> FeaturePlan:
    entities = {item.name: item for item in objects if isinstance(item, Entity)}
    latest = [item for item in objects if isinstance(item, FeatureView) and not isinstance(item, StreamFeatureView)]
    views = {item.name: compile_view(item, entities) for item in latest}
    streams = [item for item in objects if isinstance(item, StreamFeatureView)]
    windows, sources = compile_windows(repo, streams, entities)
    all_views = views | windows
    on_demand = [item for item in objects if isinstance(item, OnDemandFeatureView)]
    transforms = {item.name: compile_transform(item) for item in on_demand}
    services = [item for item in objects if isinstance(item, FeatureService)]
    request = compile_request(on_demand)
    check_inputs(all_views.values(), request)
    return FeaturePlan(
        project=project,
        views=tuple(views.values()),
        request=request,
        transforms=tuple(transforms.values()),
        services=tuple(compile_service(item, all_views, transforms) for item in services),
        windows=tuple(windows.values()),
        sources=tuple(sources.values()),
    )


def _models(repo: Path) -> tuple[ModelSpec, ...]:
    if not (repo / f"{MODELS}.py").exists():
        return ()
    models = getattr(load_module(repo, MODELS), "MODELS", None)
    if not isinstance(models, list | tuple) or not all(isinstance(item, ModelSpec) for item in models):
        raise DefinitionError(
            f"file {repo / MODELS}.py",
            "does not define MODELS as a list of ModelSpec",
            fix="set MODELS = [ModelSpec(...)]",
        )
    names = [spec.name for spec in models]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(f"model {name!r}", "is defined twice", fix="rename or remove one of them")
    return tuple(models)


def _compile_policy(spec: ModelSpec, plan: FeaturePlan) -> ModelSpec:
    if spec.policy is None:
        return spec
    return replace(spec, policy=compile_policy(f"model {spec.name!r}", spec.policy, plan, spec.service, module_source))


def _decisions(repo: Path) -> Sequence[DecisionStream]:
    if not (repo / f"{MODELS}.py").exists():
        return ()
    decisions = getattr(load_module(repo, MODELS), "DECISIONS", ())
    if not isinstance(decisions, list | tuple) or not all(isinstance(item, DecisionStream) for item in decisions):
        raise DefinitionError(
            f"file {repo / MODELS}.py",
            "defines DECISIONS, which is not a list of DecisionStream",
            fix="set DECISIONS = [DecisionStream(...)], or remove it",
        )
    return decisions


class ArrayTransformation(PythonTransformation):
    """A transform with declared outputs, so that Feast does not infer their types from the values of one call."""

    declared: Sequence[Field] = ()

    def infer_features(
        self,
        random_input: dict[str, Any],
        singleton: bool | None = False,  # noqa: ARG002, FBT001, FBT002 - Feast's signature
    ) -> list[Field]:
        """Return the declared features, after a test call with Feast's sample."""
        self.transform(random_input)
        return list(self.declared)


def _add_adapter(plan: FeaturePlan, transform: Transform, view: OnDemandFeatureView) -> OnDemandFeatureView:
    """Return the view to register with Feast."""
    text = build_registered_text(plan, transform)
    namespace: dict[str, Any] = {"__name__": f"transform_{transform.name}"}
    exec(compile(text, f"<transform {transform.name}>", "exec"), namespace)  # noqa: S102 - the repo's own source
    transformation = ArrayTransformation(udf=namespace[f"{transform.function}_of_lists"], udf_string=text)
    transformation.declared = tuple(view.features)
    registered = copy.copy(view)
    registered.feature_transformation = transformation
    return registered


def build_registered_text(plan: FeaturePlan, transform: Transform) -> str:
    """Return the source text that Feast runs: the transform's module, our adapter, and a line that combines them."""
    inputs = {ref.name: (plan.dtype(ref).value, input_dtype(plan, ref).value) for ref in transform.inputs}
    outputs = {column.name: column.dtype.value for column in transform.outputs}
    # Inside a function, so that our names do not replace names of the transform's module.
    adapter_text = textwrap.indent(inspect.getsource(array_calls).replace(_FUTURE, ""), "    ")
    function = transform.function
    call = f"{function}_of_lists = {_ADAPTER}()({function}, {transform.name!r}, {inputs!r}, {outputs!r})"
    adapter = f"def {_ADAPTER}():\n{adapter_text}\n    return wrap_transform"
    return f"{transform.source.rstrip()}\n\n\n# Written by `skewless apply`.\n{adapter}\n\n\n{call}\n"
