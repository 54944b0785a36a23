"""Compile Feast feature services, and the transforms of on-demand views and of windowed views.

The transform of a windowed view derives columns from events; its filter is one of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from feast import FeatureService, Field, OnDemandFeatureView, RequestSource, StreamFeatureView
from feast.feature_view_projection import FeatureViewProjection
from feast.transformation.mode import TransformationMode

from skewless.contract.columns import PREDICTION, REQUEST, Column, FeatureRef, Transform
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import Service, View
from skewless.contract.transforms import TransformRunner
from skewless.contract.windows.view import EVENT_GROUP, EventSource, WindowView
from skewless.infra.definitions.compiler.event_columns import check_columns_exist, parse_columns, parse_names
from skewless.infra.definitions.compiler.views import check_case, check_reserved, check_tags, compile_field

TAG_PREDICTION_TIME = "skewless.prediction_time"
TAG_INPUTS = "skewless.inputs"
TAG_DERIVED = "skewless.derived"
TAG_WHERE = "skewless.where"


def compile_request(on_demand: list[OnDemandFeatureView]) -> tuple[Column, ...]:
    """Return the request fields of on-demand views; a name has one type.

    Raises:
        DefinitionError: two request sources declare a field differently.
    """
    # The prediction time is passed like a request field, but is not part of a request.
    fields: dict[str, Column] = {}
    times: set[str] = set()
    for view in on_demand:
        for source in view.source_request_sources.values():
            time_field = find_time_field(source)
            for field in source.schema:
                column = compile_field(f"request source {source.name!r}", field)
                if column.name == time_field:
                    times.add(column.name)
                elif fields.setdefault(column.name, column) != column:
                    raise DefinitionError(
                        f"request field {column.name!r}",
                        "is declared with two types",
                        value=f"{fields[column.name].dtype} and {column.dtype}",
                        fix="declare the field with one type",
                    )
    for name in sorted(times & fields.keys()):
        raise DefinitionError(
            f"request field {name!r}", "is also declared as the prediction time", fix="rename one of them"
        )
    return tuple(fields.values())


def find_time_field(source: RequestSource) -> str | None:
    """Return the field with the prediction time, which is not part of the request; None if there is none.

    Raises:
        DefinitionError: the tag does not name a UnixTimestamp of the schema.
    """
    owner = f"request source {source.name!r}"
    name = check_tags(owner, source.tags or {}, [TAG_PREDICTION_TIME]).get(TAG_PREDICTION_TIME)
    if name is None:
        return None
    types = {field.name: compile_field(owner, field).dtype for field in source.schema}
    if types.get(name) is not DType.TIMESTAMP:
        raise DefinitionError(
            f"{owner} tag {TAG_PREDICTION_TIME!r}",
            "does not name a field of type UnixTimestamp",
            value=name,
            fix="name a field of the source's schema",
        )
    return name


def check_inputs(views: Iterable[View | WindowView], request: Sequence[Column]) -> None:
    """Check that each name in a request is either a join key of one type, or a request field.

    Raises:
        DefinitionError: two names are equal, without regard to case, as in SQL.
    """
    keys: dict[str, Column] = {}
    for key in (key for view in views for key in view.keys):
        if keys.setdefault(key.name.lower(), key) != key:
            first = keys[key.name.lower()]
            raise DefinitionError(
                f"join key {key.name!r}",
                "has two types, or differs from another key only in case",
                value=f"{first.name} {first.dtype} and {key.name} {key.dtype}",
                fix="declare it with one type and case in all entities, or rename one",
            )
    for field in request:
        if field.name.lower() in keys:
            raise DefinitionError(
                f"request field {field.name!r}", "has the name of a join key", fix="rename the request field"
            )


def compile_transform(view: OnDemandFeatureView) -> Transform:
    """Return the transform of an on-demand view, with the source text of its module.

    Raises:
        DefinitionError: it is not in Python mode, or two inputs have one name.
    """
    owner = f"on-demand feature view {view.name!r}"
    check_reserved(owner, view.name)
    if view.mode != "python":
        raise DefinitionError(
            owner,
            "computes with pandas, whose results depend on the number of rows",
            value=f"mode={view.mode!r}",
            fix='use mode="python" with a numpy function',
        )
    if view.singleton:
        raise DefinitionError(
            owner,
            "is called row by row",
            value="singleton=True",
            fix="remove singleton=True: the function takes arrays",
        )
    transformation: Any = view.feature_transformation
    function = transformation.udf
    return Transform(
        name=view.name,
        function=function.__name__,
        source=module_source(owner, function),
        inputs=_inputs(owner, view),
        outputs=tuple(compile_field(owner, field) for field in view.features),
    )


def compile_service(
    service: FeatureService, views: Mapping[str, View | WindowView], transforms: Mapping[str, Transform]
) -> Service:
    """Return the service of a Feast feature service, with its features in the order of declaration.

    Raises:
        DefinitionError: it is empty, lists a feature twice, or names an unknown view.
    """
    owner = f"feature service {service.name!r}"
    refs = [
        FeatureRef(group=projection.name, name=field.name)
        for projection in service.feature_view_projections
        for field in _fields(owner, projection)
        if _is_feature(service, projection.name, field.name, views, transforms)
    ]
    labels = [ref.label for ref in refs]
    for label in labels:
        if labels.count(label) > 1:
            raise DefinitionError(owner, "has two features with one name", value=label, fix="list it once")
    if not refs:
        raise DefinitionError(owner, "has no feature", fix="list at least one view")
    return Service(name=service.name, features=tuple(refs))


def _is_feature(
    service: FeatureService,
    group: str,
    name: str,
    views: Mapping[str, View | WindowView],
    transforms: Mapping[str, Transform],
) -> bool:
    if group in views:
        return name not in {key.name for key in views[group].keys}
    if group in transforms:
        return True
    raise DefinitionError(
        f"feature service {service.name!r}",
        "names a view that is not in definitions.py",
        value=group,
        fix="define the view at the top level of definitions.py",
    )


def _fields(owner: str, projection: FeatureViewProjection) -> Sequence[Field]:
    if projection.join_key_map:
        raise DefinitionError(
            f"{owner} view {projection.name!r}",
            "renames join keys, which is not supported",
            value=dict(projection.join_key_map),
            fix="define a second feature view over the same source with an entity of that key",
        )
    if not projection.desired_features:
        return projection.features
    # view[["feature"]] of a view without a declared schema: Feast resolves its features only now.
    known = {field.name: field for field in projection.features}
    for name in projection.desired_features:
        if name not in known:
            raise DefinitionError(
                f"{owner} view {projection.name!r}",
                "has no such feature",
                value=name,
                fix=f"use one of {', '.join(known)}",
            )
    return [known[name] for name in projection.desired_features]


def _inputs(owner: str, view: OnDemandFeatureView) -> tuple[FeatureRef, ...]:
    refs = [
        FeatureRef(group=projection.name, name=field.name)
        for projection in view.source_feature_view_projections.values()
        for field in _fields(owner, projection)
    ]
    refs += [
        FeatureRef(group=PREDICTION if field.name == find_time_field(source) else REQUEST, name=field.name)
        for source in view.source_request_sources.values()
        for field in source.schema
    ]
    names = [ref.name for ref in refs]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(owner, "has two inputs with one name", value=name, fix="rename one of the features")
    return tuple(refs)


def module_source(owner: str, function: Any) -> str:  # noqa: ANN401 - a user's function
    """Return the source text of the module that defines a function.

    Raises:
        DefinitionError: the function is not defined in a file.
    """
    # Feast sets the function's __module__ to "__main__", so find the module by the file of its code.
    try:
        return Path(inspect.getsourcefile(function) or "").read_text()
    except (OSError, TypeError) as error:
        raise DefinitionError(
            owner, "has a function whose module cannot be read", fix="define it in a file next to definitions.py"
        ) from error


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
