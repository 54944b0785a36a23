"""Build the Feast objects to register: on-demand views get an adapter, so that Feast computes what skewless does."""

from __future__ import annotations

import copy
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

from feast import Field, OnDemandFeatureView
from feast.transformation.python_transformation import PythonTransformation

from skewless.contract.columns import Transform
from skewless.contract.plan import FeaturePlan
from skewless.contract.transforms import input_dtype
from skewless.infra.compiler import array_calls

_ADAPTER = "_skewless_array_calls"
_FUTURE = "from __future__ import annotations\n"


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


def build_feast_objects(plan: FeaturePlan, objects: Sequence[Any]) -> tuple[Any, ...]:
    """Return the objects of a repo to register with Feast."""
    return tuple(
        _add_adapter(plan, plan.transform(item.name), item) if isinstance(item, OnDemandFeatureView) else item
        for item in objects
    )


def _add_adapter(plan: FeaturePlan, transform: Transform, view: OnDemandFeatureView) -> OnDemandFeatureView:
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
