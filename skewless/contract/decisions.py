"""Decision streams: which events a model decides, declared with the models as frozen data (SEMANTICS 9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias, get_args

from skewless.contract.columns import Column, Transform
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_name
from skewless.contract.plain_record import build_record, plain_value
from skewless.contract.sinks import Sink, sink_from_dict

LatePolicy = Literal["mark", "skip"]
Direction = Literal["up", "down", "both"]
WHEN = "when"  # the output of a condition
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Crosses:
    """Decide an event that takes a window feature of its entity across a bound (SEMANTICS 9.6).

    Args:
        feature: ``VIEW:FEATURE`` of a windowed view of the stream's source.
        bound: the bound; a value that is equal to it is above it.
        direction: ``up``: from below the bound to it or above; ``down``: the other way; ``both``. Null is below it.
    """

    feature: str
    bound: float
    direction: Direction = "up"

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        view, colon, name = self.feature.partition(":")
        if not (view and colon and name):
            raise DefinitionError(
                "Crosses.feature", "is not a feature of a view", value=self.feature, fix="write VIEW:FEATURE"
            )
        bound: object = self.bound
        if not isinstance(bound, int | float) or isinstance(bound, bool) or not math.isfinite(bound):
            raise DefinitionError("Crosses.bound", "is not a finite number", value=self.bound, fix="give a number")
        if self.direction not in get_args(Direction):
            fix = f"use one of {', '.join(get_args(Direction))}"
            raise DefinitionError("Crosses.direction", "is unknown", value=self.direction, fix=fix)

    @property
    def view(self) -> str:
        """Return the name of the windowed view."""
        return self.feature.partition(":")[0]

    @property
    def name(self) -> str:
        """Return the name of the feature in its view."""
        return self.feature.partition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Decide an entity when its row in a latest-value view changes (SEMANTICS 9.7).

    Args:
        view: name of the view; the columns of its rows take the place of the fields of an event.
    """

    view: str


Condition: TypeAlias = Callable[[Any], Any] | Transform | Crosses | Changes


@dataclass(frozen=True, kw_only=True)
class DecisionStream:
    """A stream of decisions: each accepted event of a source that meets the condition gets exactly one.

    Args:
        name: of the stream; part of the ids of its decisions.
        model: name of the model that scores.
        source: name of the event source; None: ``when`` is a ``Changes``.
        columns: input of the model (join key or request field) -> field of the event, if they differ.
        when: which events are decided: a function of a numpy-only module that takes a dict of the event's fields as
            arrays and returns one bool for each event, or ``Crosses``, or ``Changes``; None: all.
        late: what happens to a late event: ``mark`` decides it at the time at which it came, and marks the decision;
            ``skip`` does not decide it.
        deadline: after this time since its acceptance an event is decided with nulls for the views that cannot be
            read, if the model allows nulls, and otherwise becomes a dead letter; None: it waits.
        sinks: where the decisions are delivered.
    """

    name: str
    model: str
    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    when: Condition | None = None
    late: LatePolicy = "mark"
    deadline: timedelta | None = None
    sinks: Sequence[Sink] = ()

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "sinks", tuple(self.sinks))
        check_name("DecisionStream.name", self.name)
        if self.late not in get_args(LatePolicy):
            raise self.error("late", "is unknown", self.late, f"use one of {', '.join(get_args(LatePolicy))}")
        if self.deadline is not None and self.deadline <= timedelta(0):
            raise self.error("deadline", "is not above zero", str(self.deadline), "give a length above zero, or None")
        if isinstance(self.when, Changes) != (self.source is None):
            fix = "name the event source, or use when=Changes(view=...) alone"
            raise self.error("source", "does not fit 'when'", self.source, fix)
        for sink in self.sinks:
            if not isinstance(sink, get_args(Sink)):
                raise self.error("sinks", "has an item that is not a sink", type(sink).__name__, "use KafkaSink, ...")

    @property
    def deadline_us(self) -> int | None:
        """Return the deadline in microseconds; None: there is none."""
        return None if self.deadline is None else self.deadline // _MICROSECOND

    def column(self, name: str) -> str:
        """Return the field of an event that holds an input of the model."""
        return self.columns.get(name, name)

    def error(self, name: str, problem: str, value: object, fix: str) -> DefinitionError:
        """Return an error about one of its fields."""
        return DefinitionError(f"decision stream {self.name!r} {name}", problem, value=value, fix=fix)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the deadline is in microseconds."""
        when = self.when
        if when is not None and not isinstance(when, Transform | Crosses | Changes):
            raise TypeError(when)  # a function that was not compiled
        return vars(self) | {
            "columns": dict(self.columns),
            "when": None if when is None else {"kind": type(when).__name__, "value": plain_value(when)},
            "deadline": self.deadline_us,
            "sinks": [sink.as_dict() for sink in self.sinks],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DecisionStream:
        """Build a stream from the result of ``as_dict``."""
        sinks = [sink_from_dict(item) for item in data["sinks"]]
        # The fields of a condition tell its kind, too.
        when = None if data["when"] is None else data["when"]["value"]
        return build_record(cls, {**data, "when": when, "sinks": sinks})


CONDITION_OUTPUTS = (Column(name=WHEN, dtype=DType.BOOL),)
