"""Records from plain JSON values: the inverse of ``as_dict``, also of what older releases wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

import pytest

from skewless.contract.actions import Explore
from skewless.contract.labels import AnyLabels, LabelSource, Outcomes
from skewless.contract.plain_record import PlainRecord, build_record, build_value, plain_value
from skewless.contract.policy import Policy


@dataclass(frozen=True, kw_only=True)
class NestedRecord(PlainRecord):
    """A record with a value of each kind."""

    parts: tuple[tuple[str, int], ...]
    by_name: dict[str, list[Explore]]
    length: timedelta | None = None
    nothing: Explore | None = None


def test_a_nested_record_survives_json() -> None:
    record = NestedRecord(
        parts=(("a", 1), ("b", 2)),
        by_name={"x": [Explore(share=0.1, action="approve", sticky=("id",))]},
        length=timedelta(days=2),
    )
    assert build_record(NestedRecord, json.loads(json.dumps(plain_value(record)))) == record


@pytest.mark.parametrize("labels", [LabelSource(path="p", event_time="e", known_time="k", label="l"), Outcomes()])
def test_the_fields_of_a_union_tell_its_class(labels: AnyLabels) -> None:
    assert build_value(AnyLabels, plain_value(labels)) == labels


@pytest.mark.parametrize("data", [{}, {"share": 0.1, "action": "a", "unknown": 1}, [], "share", 7])
def test_other_values_are_refused(data: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        build_value(Explore, data)
    with pytest.raises((TypeError, ValueError)):
        build_value(Outcomes | None, data or [1])


def test_a_function_that_was_not_compiled_stays() -> None:
    policy = Policy(function=print, actions=("a",))
    assert build_record(Policy, vars(policy)) == policy
