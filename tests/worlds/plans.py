"""Small plans for tests; only what a test is about is named by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skewless.contract.columns import Column, FeatureRef, Transform
from skewless.contract.dtypes import DType
from skewless.contract.plan import FeaturePlan, Service, Source, View

INT_KEY = {"id": DType.INT64}
ONE_FLOAT = {"x": DType.FLOAT64}


def columns(types: Mapping[str, DType]) -> tuple[Column, ...]:
    return tuple(Column(name=name, dtype=dtype) for name, dtype in types.items())


def make_view(
    name: str = "v",
    *,
    keys: Mapping[str, DType] = INT_KEY,
    features: Mapping[str, DType] = ONE_FLOAT,
    path: str = "v.parquet",
    created: str | None = "created",
    tombstone: str | None = None,
    renamed: Mapping[str, str] | None = None,
    ttl_us: int = 0,
    delay_us: int = 0,
    freshness_us: int = 0,
) -> View:
    return View(
        name=name,
        keys=columns(keys),
        features=columns(features),
        source=Source(
            path=path,
            event_column="event",
            created_column=created,
            tombstone_column=tombstone,
            columns=dict(renamed or {}),
        ),
        ttl_us=ttl_us,
        delay_us=delay_us,
        freshness_us=freshness_us,
    )


def refs(*labels: str) -> tuple[FeatureRef, ...]:
    """Return references written as ``group.name``."""
    parts = [label.split(".") for label in labels]
    return tuple(FeatureRef(group=group, name=name) for group, name in parts)


def make_transform(
    source: str, inputs: Sequence[str], outputs: Mapping[str, DType] | None = None, *, name: str = "made"
) -> Transform:
    return Transform(
        name=name,
        function="f",
        source=source,
        inputs=refs(*inputs),
        outputs=columns(outputs or {"out": DType.FLOAT64}),
    )


def make_plan(
    features: Sequence[str],
    *,
    views: Sequence[View] = (),
    request: Mapping[str, DType] | None = None,
    transforms: Sequence[Transform] = (),
) -> FeaturePlan:
    return FeaturePlan(
        project="p",
        views=tuple(views),
        request=columns(request or {}),
        transforms=tuple(transforms),
        services=(Service(name="s", features=refs(*features)),),
    )
