"""Routing of the rows of a request to model versions, by a traffic policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from skewless.contract.errors import PackageError
from skewless.contract.traffic import TrafficPolicy, entity_position
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.rollout.counts import PolicyCounts, RolloutCounts
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import Arm


class ArmRows(NamedTuple):
    """Rows of a request that one arm serves.

    Args:
        rows: indices in the request, ascending; None: all rows.
    """

    arm: Arm
    rows: Sequence[int] | None = None


class Routing:
    """A traffic policy with its loaded versions.

    Args:
        models: by version.

    Raises:
        PackageError: a version has other inputs or outputs than the champion, or a sticky key is not an input.
    """

    def __init__(self, policy: TrafficPolicy, models: Mapping[str, ServedModel], metrics: Metrics) -> None:
        self.policy = policy
        champion = models[policy.champion]
        names = list(_inputs(champion))
        self._sticky = policy.sticky or tuple(column.name for column in champion.plan.join_keys)
        for name in self._sticky:
            if name not in names:
                raise PackageError(
                    f"traffic of model {champion.name!r}",
                    "has a sticky key that is not an input",
                    value=name,
                    fix=f"use {', '.join(names)}",
                )
        for model in models.values():
            _check_interface(champion, model)
        serving, shadows = _split_versions(policy)
        self._shadows = tuple(Arm(models[version], "shadow", policy.number, metrics) for version in shadows)
        self._champion = Arm(champion, "champion", policy.number, metrics, self._shadows)
        self._challenger = (
            None if serving is None else Arm(models[serving], "challenger", policy.number, metrics, self._shadows)
        )

    @property
    def has_same_features(self) -> bool:
        """Whether all serving versions have the features and views of the champion, so that one tensor fits all."""
        challenger = self._challenger
        return challenger is None or _features_of(challenger.model) == _features_of(self._champion.model)

    def shares(self, columns: Mapping[str, Sequence[Any]], n: int) -> list[ArmRows]:
        """Return which arm serves which of n rows, by the values of the sticky keys."""
        if self._challenger is None:
            return [ArmRows(self._champion)]
        if n == 1:
            return [ArmRows(self.arm_of_row(columns))]
        sticky = [columns[name] for name in self._sticky]
        rows: dict[Arm, list[int]] = {}
        for i, values in enumerate(zip(*sticky, strict=True)):
            rows.setdefault(self._arm_of(values), []).append(i)
        return [ArmRows(arm, None if len(rows) == 1 else indices) for arm, indices in rows.items()]

    def arm_of_row(self, columns: Mapping[str, Sequence[Any]]) -> Arm:
        """Return which arm serves the only row of a request."""
        if self._challenger is None:
            return self._champion
        return self._arm_of([columns[name][0] for name in self._sticky])

    def read_counts(self, at_us: int) -> PolicyCounts:
        """Return the counts of all versions up to now."""
        versions: dict[str, RolloutCounts] = {}
        for arm in (self._champion, self._challenger, *self._shadows):
            if arm is not None:
                version = arm.model.version
                versions[version] = versions.get(version, RolloutCounts()) + arm.counts.read_counts(at_us)
        return PolicyCounts(self.policy.number, versions)

    def _arm_of(self, values: Sequence[object]) -> Arm:
        # The salt is constant during a rollout, so a larger share only adds entities to the challenger.
        if self._challenger is not None and entity_position(self.policy.salt, values) < self.policy.share:
            return self._challenger
        return self._champion


def _split_versions(policy: TrafficPolicy) -> tuple[str | None, list[str]]:
    """Return the version that serves a share, and the shadow versions."""
    shadows = list(dict.fromkeys(policy.shadows))
    if policy.phase != "shadow" or policy.challenger is None:
        return None if policy.phase == "champion" else policy.challenger, shadows
    return None, list(dict.fromkeys([policy.challenger, *shadows]))


def _check_interface(champion: ServedModel, model: ServedModel) -> None:
    for problem, actual, expected in (
        ("has other inputs", _inputs(model), _inputs(champion)),
        ("has other outputs", _outputs(model), _outputs(champion)),
    ):
        if actual != expected:
            raise PackageError(
                f"model {model.name!r} {model.version}",
                f"{problem} than the champion {champion.version}, whose callers it would serve",
                value=actual,
                fix="promote it at once instead, and change the callers",
            )


def _inputs(model: ServedModel) -> dict[str, str]:
    return {column.name: str(column.dtype) for column in (*model.plan.join_keys, *model.plan.request)}


def _outputs(model: ServedModel) -> tuple[int, tuple[str, ...], bool]:
    spec = model.package.spec
    return model.runtime.n_outputs, tuple(spec.classes), bool(spec.decisions)


def _features_of(model: ServedModel) -> tuple[tuple[str, ...], list[str]]:
    return tuple(model.assembler.labels), [view.name for view in model.plan.all_views]
