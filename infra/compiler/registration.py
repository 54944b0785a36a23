"""On-demand views as they are handed to Feast's registry: Feast's call gives their functions what ours does."""

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
    """A transform whose outputs are declared: Feast need not guess their types from the values of one call."""

    declared: Sequence[Field] = ()

    def infer_features(
        self,
        random_input: dict[str, Any],
        singleton: bool | None = False,  # noqa: ARG002, FBT001, FBT002 - Feast's signature
    ) -> list[Field]:
        """Return the declared features, after a call with Feast's sample."""
        self.transform(random_input)
        return list(self.declared)


def feast_objects(plan: FeaturePlan, objects: Sequence[Any]) -> tuple[Any, ...]:
    """Return the objects of a repo as they are to be registered."""
    return tuple(
        _with_arrays(plan, plan.transform(item.name), item) if isinstance(item, OnDemandFeatureView) else item
        for item in objects
    )


def _with_arrays(plan: FeaturePlan, transform: Transform, view: OnDemandFeatureView) -> OnDemandFeatureView:
    text = registered_text(plan, transform)
    namespace: dict[str, Any] = {"__name__": f"transform_{transform.name}"}
    exec(compile(text, f"<transform {transform.name}>", "exec"), namespace)  # noqa: S102 - the repo's own source
    transformation = ArrayTransformation(udf=namespace[f"{transform.function}_of_lists"], udf_string=text)
    transformation.declared = tuple(view.features)
    registered = copy.copy(view)
    registered.feature_transformation = transformation
    return registered


def registered_text(plan: FeaturePlan, transform: Transform) -> str:
    """Return the source text that Feast runs: the transform's module, ours, and a line that joins them."""
    inputs = {ref.name: (plan.dtype(ref).value, input_dtype(plan, ref).value) for ref in transform.inputs}
    outputs = {column.name: column.dtype.value for column in transform.outputs}
    # In a function: names of ours must not take the place of those that the transform's module has.
    ours = textwrap.indent(inspect.getsource(array_calls).replace(_FUTURE, ""), "    ")
    function = transform.function
    call = f"{function}_of_lists = {_ADAPTER}()({function}, {transform.name!r}, {inputs!r}, {outputs!r})"
    adapter = f"def {_ADAPTER}():\n{ours}\n    return arrays_for"
    return f"{transform.source.rstrip()}\n\n\n# Written by `skewless apply`.\n{adapter}\n\n\n{call}\n"
