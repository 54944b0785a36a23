"""Compile decision streams: check their names and types against the plan, and read the text of their conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from skewless.contract.columns import Column, FeatureRef, Transform
from skewless.contract.decision_inputs import ConditionRunner
from skewless.contract.decisions import CONDITION_OUTPUTS, WHEN, Changes, Crosses, DecisionStream
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.contract.windows.view import EVENT_GROUP, EventSource
from skewless.infra.definitions.compiler.services import module_source

_WIDER = {DType.INT64: DType.INT32, DType.FLOAT64: DType.FLOAT32}


def compile_decisions(
    streams: Sequence[DecisionStream], plan: FeaturePlan, models: Sequence[ModelSpec]
) -> tuple[DecisionStream, ...]:
    """Return decision streams whose conditions have their source text.

    Raises:
        DefinitionError: a stream names an unknown source, model, view, field or feature, a field has another type than
            the model's input, a condition is not row-wise, or two streams or sinks have one name.
    """
    _check_unique("decision stream", [stream.name for stream in streams])
    _check_unique("sink", [sink.name for stream in streams for sink in stream.sinks])
    return tuple(_compile(stream, plan, {spec.name: spec for spec in models}) for stream in streams)


def _check_unique(kind: str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise DefinitionError(f"{kind} {name!r}", "is defined twice", fix="rename or remove one of them")


def _compile(stream: DecisionStream, plan: FeaturePlan, models: dict[str, ModelSpec]) -> DecisionStream:
    if stream.model not in models:
        raise stream.error("model", "is unknown", stream.model, f"use one of {', '.join(models) or 'none'}")
    when = stream.when
    if isinstance(when, Changes):
        view = next((view for view in plan.views if view.name == when.view), None)
        if view is None:
            names = ", ".join(view.name for view in plan.views) or "none"
            raise stream.error("when", "names no latest-value view", when.view, f"use one of {names}")
        _check_inputs(stream, plan, models[stream.model], (*view.keys, *view.features), f"view {view.name!r}")
        return stream
    source = next((source for source in plan.sources if source.name == stream.source), None)
    if source is None:
        names = ", ".join(source.name for source in plan.sources) or "none"
        raise stream.error("source", "is not an event source of the plan", stream.source, f"use one of {names}")
    _check_inputs(stream, plan, models[stream.model], source.readable, f"event source {source.name!r}")
    if isinstance(when, Crosses):
        _check_crossing(stream, when, plan, source)
    elif when is not None and not isinstance(when, Transform):
        when = _compile_condition(stream, when, source)
    return replace(stream, when=when)


def _check_inputs(
    stream: DecisionStream, plan: FeaturePlan, spec: ModelSpec, fields: Sequence[Column], owner: str
) -> None:
    """Check that each input of the model is a field of the events, of a type that it can take."""
    part = plan.select_service(spec.service)
    inputs = {column.name: column.dtype for column in (*part.join_keys, *part.request)}
    types = {column.name: column.dtype for column in fields}
    for name in stream.columns:
        if name not in inputs:
            raise stream.error("columns", "names no input of the model", name, f"use {', '.join(inputs)}")
    for name, dtype in inputs.items():
        field = stream.column(name)
        if field not in types:
            fix = f"map it with columns={{{name!r}: FIELD}} to one of {', '.join(types)}"
            raise stream.error("columns", f"lack input {name!r} of the model: {owner} has no such field", field, fix)
        if types[field] not in {dtype, _WIDER.get(dtype)}:
            value = f"{field} {types[field]}"
            raise stream.error("columns", f"map input {name!r} of type {dtype} to another type", value, "map another")


def _check_crossing(stream: DecisionStream, when: Crosses, plan: FeaturePlan, source: EventSource) -> None:
    view = next((view for view in plan.windows if view.name == when.view), None)
    if view is None or view.source != source.name:
        names = ", ".join(view.name for view in plan.windows if view.source == source.name) or "none"
        raise stream.error("when", "names no windowed view of the source", when.view, f"use one of {names}")
    features = [item.name for item in view.aggregates]
    if when.name not in features:
        raise stream.error("when", "names no feature of the view", when.feature, f"use one of {', '.join(features)}")


def _compile_condition(stream: DecisionStream, function: Callable[[Any], Any], source: EventSource) -> Transform:
    owner = f"decision stream {stream.name!r} when"
    if not getattr(function, "__name__", "").isidentifier():
        fix = "define it with def in a module next to definitions.py"
        raise DefinitionError(owner, "is not a named function", value=function, fix=fix)
    condition = Transform(
        name=stream.name,
        function=function.__name__,
        source=module_source(owner, function),
        inputs=tuple(FeatureRef(group=EVENT_GROUP, name=column.name) for column in source.readable),
        outputs=CONDITION_OUTPUTS,
    )
    runner = ConditionRunner(condition, source)
    runner.check()
    sample = {ref.name: np.array([None], object) for ref in condition.inputs}
    numbers = {column.name: np.array([np.nan]) for column in source.readable if not column.dtype.is_text}
    result = runner.run(sample | numbers)[WHEN]
    if result.dtype != np.bool_:
        raise DefinitionError(owner, "does not return bools", value=str(result.dtype), fix="return a comparison")
    return condition
