"""Where the labels of a model come from: a label table, outcomes of logged predictions, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, get_args

from skewless.contract.errors import DefinitionError

VectorSource = Literal["recomputed", "logged"]
KnownTime = Literal["arrived", "declared"]
_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A label table: one row per prediction, with keys, request fields, label and times.

    Args:
        path: Parquet file, folder or glob, relative to the repo.
        event_time: column with the event time of the prediction.
        known_time: column with the time at which the label became known; null: not yet.
        label: column with the label; rows without a label are counted and skipped.
        weight: column with a sample weight, if any.
        columns: name in the plan (join key or request field) -> column of the table, if they differ.
        tolerance: largest difference between the time of a logged prediction and its expected time (event time minus
            horizon) at which a label, or feedback by entity, still belongs to the prediction.
    """

    path: str
    event_time: str
    known_time: str
    label: str
    weight: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    tolerance: timedelta = _TOLERANCE

    def column(self, name: str) -> str:
        """Return the column that holds a join key or request field."""
        return self.columns.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Labels from the outcomes of logged predictions (SEMANTICS 10): one row per prediction that was served by keys.

    Args:
        table: a label table in addition. A row of it that belongs to a logged prediction is an outcome of that
            prediction; other rows are label rows of their own.
        maturity: time after a prediction before which its label is not known, even if its outcome has arrived: early
            outcomes may differ from late ones.
        missing: the label of a prediction that has no outcome when it is mature; None: the prediction is skipped. A
            prediction whose label was retracted is always skipped.
        known: ``arrived``: an outcome is known when it arrived. ``declared``: when its sender says that it became
            known, for history that is sent afterwards.
        vectors: ``recomputed``: features are joined from the log, as for a label table. ``logged``: those of the
            prediction, where its version has the features of the service.
        observed: actions whose outcome can be observed; predictions with another action are skipped; none: all.
        weighted: whether a row has the inverse of its logged propensity as its weight.
        max_weight: greatest such weight; greater ones are clipped, and counted.
        tolerance: as of ``LabelSource``, for feedback by entity.
    """

    table: LabelSource | None = None
    maturity: timedelta = timedelta(0)
    missing: float | None = None
    known: KnownTime = "arrived"
    vectors: VectorSource = "recomputed"
    observed: tuple[str, ...] = ()
    weighted: bool = True
    max_weight: float = 100.0
    tolerance: timedelta = _TOLERANCE

    def __post_init__(self) -> None:
        """Check all fields."""
        object.__setattr__(self, "observed", tuple(self.observed))
        for name, choices in (("known", KnownTime), ("vectors", VectorSource)):
            if getattr(self, name) not in get_args(choices):
                fix = f"use one of {', '.join(get_args(choices))}"
                raise DefinitionError(f"Outcomes.{name}", "is unknown", value=getattr(self, name), fix=fix)
        if self.maturity < timedelta(0):
            raise DefinitionError(
                "Outcomes.maturity", "is below zero", value=str(self.maturity), fix="give a length of 0 or more"
            )
        if self.missing is not None and not self.maturity:
            raise DefinitionError(
                "Outcomes.missing", "has no maturity", fix="set maturity to the time in which outcomes arrive"
            )
        if not self.max_weight >= 1:
            raise DefinitionError("Outcomes.max_weight", "is below 1", value=self.max_weight, fix="give 1 or more")

    def column(self, name: str) -> str:
        """Return the column of a join key or request field in the label rows: its name."""
        return name


AnyLabels = LabelSource | Outcomes
