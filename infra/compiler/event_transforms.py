"""Compile the transform of a windowed view, which derives columns from events, and its filter."""

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
from skewless.infra.compiler.event_columns import check_columns_exist, parse_columns, parse_names
from skewless.infra.compiler.services import module_source
from skewless.infra.compiler.views import check_case

TAG_INPUTS = "skewless.inputs"
TAG_DERIVED = "skewless.derived"
TAG_WHERE = "skewless.where"


def compile_event_transform(view: StreamFeatureView, source: EventSource) -> Transform | None:
    """Return the transform of a windowed view, or None.

    Raises:
        DefinitionError: it is not in Python mode, or does not declare its inputs and outputs.
    """
    owner = f"windowed view {view.name!r}"
    function = view.udf or getattr(view.feature_transformation, "udf", None)
    if function is None:
        for tag in (TAG_INPUTS, TAG_DERIVED):
            if tag in view.tags:
                raise DefinitionError(
                    f"{owner} tag {tag!r}",
                    "describes a function that the view does not have",
                    fix="give the view a udf, or remove the tag",
                )
        return None
    mode = view.mode.value if isinstance(view.mode, TransformationMode) else view.mode
    if mode != "python":
        raise DefinitionError(
            owner,
            "has a transform in an unsupported mode",
            value=f"mode={mode!r}",
            fix='use mode="python" with a numpy function',
        )
    if TAG_DERIVED not in view.tags:
        raise DefinitionError(
            owner,
            "does not declare the columns that its function returns",
            fix=f'set tags={{"{TAG_DERIVED}": "late bool, loss float64"}}',
        )
    return _build_transform(owner, view, source, function)


def compile_filter(view: StreamFeatureView, types: Mapping[str, DType]) -> str | None:
    """Return the boolean column that filters events, or None.

    Raises:
        DefinitionError: the column is unknown or not boolean.
    """
    name = view.tags.get(TAG_WHERE)
    if name is None:
        return None
    owner = f"windowed view {view.name!r} tag {TAG_WHERE!r}"
    check_columns_exist(owner, types, [name])
    if types[name] is not DType.BOOL:
        raise DefinitionError(
            owner, "names a column that is not boolean", value=f"{name} {types[name]}", fix="name a bool column"
        )
    return name


def check_event_transform(view: WindowView) -> None:
    """Check that a view's transform computes each event alone, bit for bit, and returns the declared types.

    Raises:
        DefinitionError: it depends on other events, or returns other types.
    """
    if view.transform is None:
        return
    runner = TransformRunner.from_view(view, view.transform)
    runner.check()
    nulls: dict[str, Any] = {
        ref.name: np.array([None], dtype=object) if view.dtype(ref.name).is_text else np.array([np.nan])
        for ref in view.transform.inputs
    }
    outputs = runner.run(nulls)
    for column in view.transform.outputs:
        if column.dtype.is_text != (outputs[column.name].dtype == object):
            raise DefinitionError(
                f"windowed view {view.name!r} derived column {column.name!r}",
                f"is not of the declared type {column.dtype}",
                value=str(outputs[column.name].dtype),
                fix=f"correct the tag {TAG_DERIVED!r}, or return the declared type",
            )


def _build_transform(owner: str, view: StreamFeatureView, source: EventSource, function: Any) -> Transform:  # noqa: ANN401
    names = [column.name for column in source.readable]
    inputs = parse_names(view.tags[TAG_INPUTS]) if TAG_INPUTS in view.tags else names
    tag = f"{owner} tag {TAG_INPUTS!r}"
    check_columns_exist(tag, {column.name: column.dtype for column in source.readable}, inputs)
    if not inputs or len(set(inputs)) < len(inputs):
        raise DefinitionError(
            tag, "is empty, or names a column twice", value=view.tags[TAG_INPUTS], fix="list each column once"
        )
    outputs = parse_columns(f"{owner} tag {TAG_DERIVED!r}", view.tags[TAG_DERIVED])
    for column in outputs:
        if column.name in names:
            raise DefinitionError(
                owner,
                "derives a column with the name of an event column",
                value=column.name,
                fix="rename the derived column",
            )
    check_case(owner, [*names, *(column.name for column in outputs)])
    return Transform(
        name=view.name,
        function=function.__name__,
        source=module_source(owner, function),
        inputs=tuple(FeatureRef(group=EVENT_GROUP, name=name) for name in names if name in inputs),
        outputs=outputs,
    )
