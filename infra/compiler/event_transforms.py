"""The function of a windowed view that derives columns from events, and the filter over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from feast import StreamFeatureView
from feast.transformation.mode import TransformationMode

from skewless.contract.columns import FeatureRef, Transform
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.transforms import TransformRunner
from skewless.contract.windows.view import EVENT_GROUP, EventSource, WindowView
from skewless.infra.compiler.event_columns import check_known, parse_columns, parse_names
from skewless.infra.compiler.services import module_source
from skewless.infra.compiler.views import refuse_cases

TAG_INPUTS = "skewless.inputs"
TAG_DERIVED = "skewless.derived"
TAG_WHERE = "skewless.where"


def compile_event_transform(view: StreamFeatureView, source: EventSource) -> Transform | None:
    """Return the transform of a windowed view, None where it has none.

    Raises:
        DefinitionError: it is not in Python mode, or does not say what it reads and returns.
    """
    owner = f"windowed view {view.name!r}"
    function = view.udf or getattr(view.feature_transformation, "udf", None)
    if function is None:
        _refuse_tags(owner, view.tags)
        return None
    mode = view.mode.value if isinstance(view.mode, TransformationMode) else view.mode
    if mode != "python":
        raise DefinitionError(
            owner,
            "has a function that does not compute with numpy, event by event",
            value=f"mode={mode!r}",
            fix='use mode="python" with a numpy function',
        )
    if TAG_DERIVED not in view.tags:
        raise DefinitionError(
            owner,
            "does not say what its function returns",
            fix=f'give it tags={{"{TAG_DERIVED}": "late bool, loss float64"}}',
        )
    return _transform(owner, view, source, function)


def compile_filter(view: StreamFeatureView, types: Mapping[str, DType]) -> str | None:
    """Return the column that says which events count, None where all do.

    Raises:
        DefinitionError: it is unknown or not boolean.
    """
    name = view.tags.get(TAG_WHERE)
    if name is None:
        return None
    owner = f"windowed view {view.name!r} tag {TAG_WHERE!r}"
    check_known(owner, types, [name])
    if types[name] is not DType.BOOL:
        raise DefinitionError(
            owner, "names a column that is not boolean", value=f"{name} {types[name]}", fix="name a bool column"
        )
    return name


def check_event_transform(view: WindowView) -> None:
    """Check that a view's transform gives each event the same bits in any company, and the declared kinds of values.

    Raises:
        DefinitionError: it does not.
    """
    if view.transform is None:
        return
    runner = TransformRunner.from_view(view, view.transform)
    runner.check()
    nothing: dict[str, Any] = {
        ref.name: np.array([None], dtype=object) if view.dtype(ref.name).is_text else np.array([np.nan])
        for ref in view.transform.inputs
    }
    found = runner.run(nothing)
    for column in view.transform.outputs:
        if column.dtype.is_text != (found[column.name].dtype == object):
            raise DefinitionError(
                f"windowed view {view.name!r} derived column {column.name!r}",
                f"is not of the declared type {column.dtype}",
                value=str(found[column.name].dtype),
                fix=f"correct the tag {TAG_DERIVED!r}, or return what it says",
            )


def _refuse_tags(owner: str, tags: Mapping[str, str]) -> None:
    for tag in (TAG_INPUTS, TAG_DERIVED):
        if tag in tags:
            raise DefinitionError(
                f"{owner} tag {tag!r}",
                "describes a function that the view does not have",
                fix="give the view a udf, or remove the tag",
            )


def _transform(owner: str, view: StreamFeatureView, source: EventSource, function: Any) -> Transform:  # noqa: ANN401
    names = [column.name for column in source.readable]
    inputs = parse_names(view.tags[TAG_INPUTS]) if TAG_INPUTS in view.tags else names
    tag = f"{owner} tag {TAG_INPUTS!r}"
    check_known(tag, {column.name: column.dtype for column in source.readable}, inputs)
    if not inputs or len(set(inputs)) < len(inputs):
        raise DefinitionError(tag, "is empty, or names a column twice", value=view.tags[TAG_INPUTS], fix="list each")
    outputs = parse_columns(f"{owner} tag {TAG_DERIVED!r}", view.tags[TAG_DERIVED])
    for column in outputs:
        if column.name in names:
            raise DefinitionError(
                owner, "derives a column that events have already", value=column.name, fix="rename the derived column"
            )
    refuse_cases(owner, [*names, *(column.name for column in outputs)])
    return Transform(
        name=view.name,
        function=function.__name__,
        source=module_source(owner, function),
        inputs=tuple(FeatureRef(group=EVENT_GROUP, name=name) for name in names if name in inputs),
        outputs=outputs,
    )
