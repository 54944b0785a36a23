"""Decision streams are checked against the plan, and are a part of the applied plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugins.decisions.tests.deciding import VIEW
from skewless.contract.changes import compare_decisions
from skewless.contract.columns import FeatureRef, Transform
from skewless.contract.decision_inputs import ConditionRunner
from skewless.contract.decisions import Changes, Crosses, DecisionStream
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.labels import LabelSource
from skewless.contract.plan import FeaturePlan, Service
from skewless.contract.sinks import RedisStreamSink
from skewless.contract.spec import ModelSpec, Split
from skewless.infra.definitions.compiler.decisions import compile_decisions
from skewless.infra.definitions.plans.applied_plan import AppliedPlan, hold_apply, read_applied, save_applied
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.conditions import depends_on_other_rows, is_large, returns_numbers
from tests.worlds.plans import columns, make_view
from tests.worlds.streams import SOURCE

SPEC = ModelSpec(
    name="m",
    service="svc",
    labels=LabelSource(path="l", event_time="e", known_time="k", label="y"),
    algorithm="lightgbm",
    split=Split(test=timedelta(days=1)),
)
PLAN = FeaturePlan(
    project="p",
    views=(make_view("rows", features={"x": DType.FLOAT64, "note": DType.STRING}),),
    request=columns({"x": DType.FLOAT64}),
    transforms=(),
    services=(
        Service(name="svc", features=(FeatureRef(group="v", name="n_20"), FeatureRef(group="request", name="x"))),
    ),
    windows=(VIEW,),
    sources=(SOURCE,),
)
OUT = RedisStreamSink(name="out", stream="out")
STREAM = DecisionStream(name="all", source="s", model="m", sinks=(OUT,))


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ([replace(STREAM, model="n")], "decision stream 'all' model: is unknown (got 'n')"),
        ([replace(STREAM, source="t")], "source: is not an event source of the plan (got 't'). Fix: use one of s"),
        ([replace(STREAM, columns={"y": "x"})], "columns: names no input of the model (got 'y'). Fix: use id, x"),
        ([replace(STREAM, columns={"x": "z"})], "lack input 'x' of the model: event source 's' has no such field"),
        ([replace(STREAM, columns={"x": "s"})], "map input 'x' of type float64 to another type (got 's string')"),
        ([replace(STREAM, when=Crosses(feature="w:n_20", bound=1))], "when: names no windowed view of the source"),
        ([replace(STREAM, when=Crosses(feature="v:n_21", bound=1))], "when: names no feature of the view"),
        ([replace(STREAM, source=None, when=Changes(view="v"))], "when: names no latest-value view (got 'v')"),
        ([replace(STREAM, when=returns_numbers)], "does not return bools (got 'float64')"),
        ([replace(STREAM, when=depends_on_other_rows)], "depends on other rows"),
        ([STREAM, replace(STREAM, sinks=())], "decision stream 'all': is defined twice"),
        ([STREAM, replace(STREAM, name="b")], "sink 'out': is defined twice"),
    ],
)
def test_plan_refuses_a_stream_that_cannot_be_decided(streams: list[DecisionStream], message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        compile_decisions(streams, PLAN, [SPEC])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"late": "drop"}, "late: is unknown (got 'drop')"),
        ({"deadline": timedelta(0)}, "deadline: is not above zero"),
        ({"source": None}, "source: does not fit 'when'"),
        ({"when": Changes(view="rows")}, "source: does not fit 'when'"),
        ({"name": "a/b"}, "is not a name"),
    ],
)
def test_a_stream_with_wrong_fields_cannot_be_built(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        replace(STREAM, **fields)
    assert message in str(refused.value)


def test_a_compiled_condition_has_its_source_text_and_survives_the_plan(tmp_path: Path) -> None:
    streams = [
        replace(STREAM, when=is_large, late="skip", deadline=timedelta(seconds=2)),
        replace(STREAM, name="crossed", when=Crosses(feature="v:n_20", bound=5.0), sinks=()),
        replace(STREAM, name="moved", source=None, when=Changes(view="rows"), sinks=()),
    ]
    compiled = compile_decisions(streams, PLAN, [SPEC])
    condition = compiled[0].when
    assert isinstance(condition, Transform)
    assert "def is_large" in condition.source
    rows = {ref.name: np.array(["a", "b"], object) for ref in condition.inputs} | {"x": np.array([11.0, np.nan])}
    assert ConditionRunner(condition, SOURCE).find_matches(rows).tolist() == [True, False]
    state = ProjectState(tmp_path)
    with hold_apply(state) as lease:
        applied = AppliedPlan(
            plan=PLAN, models=(SPEC,), applied_us=1, registry="r", registry_sha256="", files={}, decisions=compiled
        )
        save_applied(state, applied, 1, lease)
    found = read_applied(state)
    assert found is not None
    assert found.decisions == compiled
    assert [change.action for change in compare_decisions((), compiled)] == ["add"] * 3
    changed = [replace(compiled[0], late="mark"), *compiled[1:]]
    (change,) = compare_decisions(compiled, changed)
    assert (change.kind, change.name, change.details[0].path) == ("decision stream", "all", ("late",))
