"""Compiles and runs the policy of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import REQUEST, FeatureRef, Transform
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, PackageError
from skewless.contract.plan import FeaturePlan
from skewless.contract.policy import ACTION, OUTPUTS, REASONS, SCORE, ListValues, Policy
from skewless.contract.request import ParsedRows
from skewless.contract.transforms import TransformRunner, input_dtype
from skewless.contract.vector import Matrix

if TYPE_CHECKING:
    from skewless.contract.actions import Scores

_GROUP, _LIST = "policy", "list"


def compile_policy(
    owner: str, policy: Policy, plan: FeaturePlan, service: str, source: Callable[[str, Any], str]
) -> Policy:
    """Return the policy with the text of its function, checked against the inputs of a service.

    Args:
        owner: the model, for errors.
        source: returns the text of the module of a function.

    Raises:
        DefinitionError: a column is unknown or a text feature, or the function is not row-wise.
    """
    function = policy.function
    if isinstance(function, Transform):
        return policy
    if not getattr(function, "__name__", "").isidentifier():
        fix = "define it with def in a module next to definitions.py"
        raise DefinitionError(owner, "has a function without a name", value=function, fix=fix)
    part = plan.select_service(service)
    groups = {SCORE: _GROUP} | {name: _group_of(owner, part, name) for name in policy.reads}
    groups |= dict.fromkeys(policy.lists, _LIST)
    for column in policy.lists.values():
        _group_of(owner, part, column, inputs_only=True)
    transform = Transform(
        name=_GROUP,
        function=function.__name__,
        source=source(owner, function),
        inputs=tuple(FeatureRef(group=group, name=name) for name, group in groups.items()),
        outputs=OUTPUTS,
    )
    compiled = replace(policy, function=transform)
    PolicyRunner(owner, compiled, part).check()
    return compiled


class PolicyActions(NamedTuple):
    """What a policy does about n rows.

    Args:
        actions: the action about each; None: nothing.
        reasons: the codes of each.
    """

    actions: Sequence[str | None]
    reasons: Sequence[tuple[str, ...]]


class PolicyRunner(TransformRunner):
    """Runs a compiled policy from its source text.

    Args:
        owner: the model, for errors.
        plan: the part of the plan that the model pins.
    """

    def __init__(self, owner: str, policy: Policy, plan: FeaturePlan) -> None:
        if not isinstance(policy.function, Transform):
            raise TypeError(policy.function)
        labels = [ref.label for ref in plan.services[0].features]
        self._owner, self.policy = owner, policy
        self._keys = {column.name for column in plan.join_keys}
        self._columns = {name: labels.index(name) for name in policy.reads if name in labels}
        # Without them, for example for a vector, nothing can be decided.
        self.needs_inputs = len(self._columns) < len(policy.reads) or bool(policy.lists)
        super().__init__(policy.function, {ref.name: self._dtype(plan, ref) for ref in policy.function.inputs})

    def act(self, scores: Scores, matrix: Matrix, rows: ParsedRows | None, lists: ListValues) -> PolicyActions:
        """Return the actions about n rows.

        Args:
            scores: ``(n,)`` float64; the largest of several outputs.
            matrix: the vectors, ``(n, n_features)`` float64.
            rows: keys and request fields; None: the caller sent vectors.
            lists: the current version of each list; one that is not there is empty.

        Raises:
            PackageError: the function fails, or returns an action that it does not declare.
        """
        if rows is None and self.needs_inputs:
            return PolicyActions([None] * len(scores), [()] * len(scores))
        values = {SCORE: scores} | {name: matrix[:, at] for name, at in self._columns.items()}
        if rows is not None:
            values |= {name: self._input(rows, name) for name in self.policy.reads if name not in values}
            for name, column in self.policy.lists.items():
                known = lists[name][1] if name in lists else frozenset()
                texts = self._texts(rows, column)
                values[name] = np.fromiter((text in known for text in texts), dtype=np.bool_, count=len(texts))
        try:
            outputs = self.run(values)
        except Exception as error:  # a user's function may raise any exception
            raise PackageError(
                f"{self._owner} policy", f"fails with {type(error).__name__}", value=str(error), fix="correct it"
            ) from error
        return self._checked(outputs)

    def check(self, seed: int = 7) -> None:
        """Check that each row's action depends on that row alone, and is declared; raises as ``TransformRunner``."""
        super().check(seed)
        sample = {
            name: np.array([None if dtype.is_text else np.nan if dtype is DType.FLOAT64 else 0], dtype.numpy)
            for name, dtype in self._dtypes.items()
        }
        try:
            self._checked(self.run(sample))
        except PackageError as error:
            raise DefinitionError(f"{self._owner} policy", str(error), fix="return declared actions") from error

    def _checked(self, outputs: Mapping[str, npt.NDArray[Any]]) -> PolicyActions:
        actions = outputs[ACTION].tolist()
        unknown = set(actions) - {None, *self.policy.actions}
        if unknown:
            names = ", ".join(self.policy.actions)
            raise PackageError(
                f"{self._owner} policy",
                "returned an action that it does not declare",
                value=min(map(str, unknown)),
                fix=f"declare it, or return one of {names}",
            )
        return PolicyActions(actions, [tuple((text or "").split()) for text in outputs[REASONS].tolist()])

    def _dtype(self, plan: FeaturePlan, ref: FeatureRef) -> DType:
        if ref.name in self.policy.lists:
            return DType.BOOL
        if ref.group == REQUEST and ref.name in self._keys:
            return DType.STRING
        return input_dtype(plan, ref) if ref.group == REQUEST else DType.FLOAT64

    def _input(self, rows: ParsedRows, name: str) -> npt.NDArray[Any]:
        if name in rows.fields:
            return rows.fields[name]
        texts = np.empty(rows.n, dtype=object)
        texts[:] = self._texts(rows, name)
        return texts

    def _texts(self, rows: ParsedRows, name: str) -> list[str | None]:
        values = rows.keys[name] if name in rows.keys else rows.fields[name].tolist()
        return [None if value is None else str(value) for value in values]


def _group_of(owner: str, part: FeaturePlan, name: str, *, inputs_only: bool = False) -> str:
    """Return the group of a column: features are found by their labels, inputs by their names."""
    inputs = [column.name for column in (*part.join_keys, *part.request)]
    if name in inputs:
        return REQUEST
    features = {} if inputs_only else {ref.label: ref for ref in part.services[0].features}
    if name not in features:
        known = ", ".join((*inputs, *features))
        raise DefinitionError(f"{owner} policy", "reads an unknown column", value=name, fix=f"use one of {known}")
    if part.dtype(features[name]).is_text:
        fix = "read a request field, or a number"
        raise DefinitionError(f"{owner} policy", "reads a feature that is a word", value=name, fix=fix)
    return _GROUP
