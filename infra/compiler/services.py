"""Feast on-demand views and feature services to the plan's transforms and services."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feast import FeatureService, OnDemandFeatureView

from infra.compiler.views import compile_field
from skewless.errors import DefinitionError
from skewless.plan import REQUEST, Column, FeatureRef, Service, Transform, View


def compile_request(on_demand: list[OnDemandFeatureView]) -> tuple[Column, ...]:
    """Return the request fields of all on-demand views; one name has one type.

    Raises:
        DefinitionError: two request sources declare one field with two types.
    """
    fields: dict[str, Column] = {}
    for view in on_demand:
        for source in view.source_request_sources.values():
            for field in source.schema:
                column = compile_field(f"request source {source.name!r}", field)
                if fields.setdefault(column.name, column) != column:
                    raise DefinitionError(
                        f"request field {column.name!r}",
                        "is declared with two types",
                        value=f"{fields[column.name].dtype} and {column.dtype}",
                        fix="declare it once",
                    )
    return tuple(fields.values())


def compile_transform(view: OnDemandFeatureView) -> Transform:
    """Return the plan's form of an on-demand view, with the source text of its module.

    Raises:
        DefinitionError: it is not in Python mode, or its inputs share a name.
    """
    owner = f"on-demand feature view {view.name!r}"
    if view.mode != "python":
        raise DefinitionError(
            owner,
            "would compute through pandas, which gives other bits for one row than for many",
            value=f"mode={view.mode!r}",
            fix='use mode="python" with a numpy function',
        )
    transformation: Any = view.feature_transformation
    function = transformation.udf
    return Transform(
        name=view.name,
        function=function.__name__,
        source=_module_source(owner, function),
        inputs=_inputs(owner, view),
        outputs=tuple(compile_field(owner, field) for field in view.features),
    )


def compile_service(service: FeatureService, views: Mapping[str, View], transforms: Mapping[str, Transform]) -> Service:
    """Return the plan's form of a feature service, its features in the order of their declaration.

    Raises:
        DefinitionError: it is empty, lists a feature twice, or names a view that is not defined.
    """
    refs = [
        FeatureRef(group=projection.name, name=field.name)
        for projection in service.feature_view_projections
        for field in projection.features
        if _known(service, projection.name, field.name, views, transforms)
    ]
    for ref in refs:
        if refs.count(ref) > 1:
            raise DefinitionError(
                f"feature service {service.name!r}", "has two features of one name", value=ref.label, fix="list it once"
            )
    if not refs:
        raise DefinitionError(f"feature service {service.name!r}", "has no feature", fix="list at least one view")
    return Service(name=service.name, features=tuple(refs))


def _known(
    service: FeatureService, group: str, name: str, views: Mapping[str, View], transforms: Mapping[str, Transform]
) -> bool:
    if group in views:
        return name not in {key.name for key in views[group].keys}
    if group in transforms:
        return True
    raise DefinitionError(
        f"feature service {service.name!r}",
        "names a view that definitions.py does not hold",
        value=group,
        fix="define the view at the top level of definitions.py",
    )


def _inputs(owner: str, view: OnDemandFeatureView) -> tuple[FeatureRef, ...]:
    refs = [
        FeatureRef(group=projection.name, name=field.name)
        for projection in view.source_feature_view_projections.values()
        for field in projection.features
    ]
    refs += [
        FeatureRef(group=REQUEST, name=field.name)
        for source in view.source_request_sources.values()
        for field in source.schema
    ]
    names = [ref.name for ref in refs]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(owner, "has two inputs of one name", value=name, fix="rename one of the features")
    return tuple(refs)


def _module_source(owner: str, function: Any) -> str:  # noqa: ANN401 - a user's function
    # Feast rewrites the function's __module__ to "__main__", so the file of its code says where it lives.
    try:
        return Path(inspect.getsourcefile(function) or "").read_text()
    except (OSError, TypeError) as error:
        raise DefinitionError(
            owner, "has a function whose module cannot be read", fix="define it in a file beside definitions.py"
        ) from error
