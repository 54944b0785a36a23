"""Which version answers which rows of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from skewless.contract.errors import PackageError
from skewless.contract.traffic import TrafficPolicy, place
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.rollout.counts import PolicyCounts, RolloutCounts
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import Arm


class ArmRows(NamedTuple):
    """Rows of a request that one arm answers.

    Args:
        rows: their places in the request, ascending; None: all of them.
    """

    arm: Arm
    rows: Sequence[int] | None = None


class Routing:
    """A traffic policy with the versions that it needs, open.

    Args:
        models: by version.

    Raises:
        PackageError: a version takes other inputs than the champion, or answers otherwise; or a sticky name is none
            of the inputs.
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
                    "sticks to what is no input",
                    value=name,
                    fix=f"use {', '.join(names)}",
                )
        for model in models.values():
            _check_alike(champion, model)
        answering, shadows = _parts(policy)
        self._shadows = tuple(Arm(models[version], "shadow", policy.number, metrics) for version in shadows)
        self._champion = Arm(champion, "champion", policy.number, metrics, self._shadows)
        self._challenger = (
            None if answering is None else Arm(models[answering], "challenger", policy.number, metrics, self._shadows)
        )

    @property
    def same_features(self) -> bool:
        """Whether whoever answers has the features and views of the champion: their values fit one tensor."""
        challenger = self._challenger
        return challenger is None or _shape(challenger.model) == _shape(self._champion.model)

    def shares(self, columns: Mapping[str, Sequence[Any]], n: int) -> list[ArmRows]:
        """Return which arm answers which of n rows, by the values of the sticky names."""
        if self._challenger is None:
            return [ArmRows(self._champion)]
        if n == 1:
            return [ArmRows(self.arm_of_one(columns))]
        sticky = [columns[name] for name in self._sticky]
        rows: dict[Arm, list[int]] = {}
        for i, values in enumerate(zip(*sticky, strict=True)):
            rows.setdefault(self._arm(values), []).append(i)
        return [ArmRows(arm, None if len(rows) == 1 else places) for arm, places in rows.items()]

    def arm_of_one(self, columns: Mapping[str, Sequence[Any]]) -> Arm:
        """Return which arm answers the only row of a request."""
        if self._challenger is None:
            return self._champion
        return self._arm([columns[name][0] for name in self._sticky])

    def vitals(self, at_us: int) -> PolicyCounts:
        """Return what its versions did until now."""
        versions: dict[str, RolloutCounts] = {}
        for arm in (self._champion, self._challenger, *self._shadows):
            if arm is not None:
                version = arm.model.version
                versions[version] = versions.get(version, RolloutCounts()) + arm.counts.vitals(at_us)
        return PolicyCounts(self.policy.number, versions)

    def _arm(self, values: Sequence[object]) -> Arm:
        if self._challenger is not None and place(self.policy.salt, values) < self.policy.share:
            return self._challenger
        return self._champion


def _parts(policy: TrafficPolicy) -> tuple[str | None, list[str]]:
    """Return the version that answers a share, and those that are scored besides."""
    shadows = list(dict.fromkeys(policy.shadows))
    if policy.phase != "shadow" or policy.challenger is None:
        return None if policy.phase == "champion" else policy.challenger, shadows
    return None, list(dict.fromkeys([policy.challenger, *shadows]))


def _check_alike(champion: ServedModel, model: ServedModel) -> None:
    for what, found, wanted in (
        ("takes other inputs", _inputs(model), _inputs(champion)),
        ("gives other outputs", _outputs(model), _outputs(champion)),
    ):
        if found != wanted:
            raise PackageError(
                f"model {model.name!r} {model.version}",
                f"{what} than the champion {champion.version}, whose callers it would answer",
                value=found,
                fix="promote it at once, and change the callers with it",
            )


def _inputs(model: ServedModel) -> dict[str, str]:
    return {column.name: str(column.dtype) for column in (*model.plan.join_keys, *model.plan.request)}


def _outputs(model: ServedModel) -> tuple[int, tuple[str, ...], bool]:
    spec = model.package.spec
    return model.runtime.n_outputs, tuple(spec.classes), bool(spec.decisions)


def _shape(model: ServedModel) -> tuple[tuple[str, ...], list[str]]:
    return tuple(model.assembler.labels), [view.name for view in model.plan.all_views]
