"""Request-time transforms as Feast calls them: the types and values of our own call, and no other definitions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, OnDemandFeatureView

from skewless.contract.arrow_types import arrow_type
from skewless.contract.clock import from_us
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import parse_rows
from skewless.contract.rows import Versions, ViewRead
from skewless.contract.vector import Assembler
from skewless.infra.definitions.plans.planning import Planner
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from tests.worlds.command_line import fingerprint
from tests.worlds.windowed import CONFIG

FEAST = {
    DType.INT32: "Int32",
    DType.INT64: "Int64",
    DType.FLOAT32: "Float32",
    DType.FLOAT64: "Float64",
    DType.BOOL: "Bool",
    DType.STRING: "String",
    DType.BYTES: "Bytes",
    DType.TIMESTAMP: "UnixTimestamp",
}
NULLABLE = {DType.FLOAT32, DType.FLOAT64, DType.STRING, DType.BYTES}
# Whole seconds: Feast's messages have no finer times.
VALUES: dict[DType, list[Any]] = {
    DType.INT32: [0, -1, 2**31 - 1, -(2**31)],
    DType.INT64: [0, 2**53 + 1, -(2**53) - 1, 2**62],
    DType.FLOAT32: [0.0, -0.0, 1.5, float(np.float32(0.1)), float(np.float32(-1e30))],
    DType.FLOAT64: [0.1, -0.0, 1e300, 5e-324],
    DType.BOOL: [True, False],
    DType.STRING: ["", "a", "日本"],
    DType.BYTES: [b"", b"\x00\xff"],
    DType.TIMESTAMP: [0, 1_700_000_000_000_000, -86_400_000_000],
}
DEFINITIONS = """\
from pathlib import Path

import transforms
from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, RequestSource
from feast.types import *
from feast.value_type import ValueType

thing = Entity(name="thing", join_keys=["id"], value_type=ValueType.INT64)
v = FeatureView(
    name="v",
    entities=[thing],
    schema=[Field(name="id", dtype=Int64){view}],
    source=FileSource(path="v.parquet", timestamp_field="event_time"),
)
asked = RequestSource(name="asked", schema=[{request}])
made = OnDemandFeatureView(
    name="made",
    sources=[asked, v],
    schema=[{outputs}],
    mode="python",
    udf=transforms.seen,
    udf_string=Path(transforms.__file__).read_text(),
)
service = FeatureService(name="s", features=[v, made])
"""
TRANSFORM = """\
import numpy as np


def seen(inputs):
    outputs = {}
    for name, column in inputs.items():
        outputs[name + "_kind"] = np.full(len(column), float(ord(column.dtype.char)))
        if column.dtype == object:
            sizes = [np.nan if item is None else 1000.0 * isinstance(item, str) + len(item) for item in column]
            outputs[name + "_value"] = np.array(sizes)
        else:
            outputs[name + "_value"] = column.astype(np.float64)
            outputs[name + "_same"] = column
    return outputs
"""


@dataclass(frozen=True)
class Shape:
    """Which columns a repo has."""

    view: tuple[Column, ...]
    request: tuple[Column, ...]

    @property
    def outputs(self) -> tuple[Column, ...]:
        both = (*self.view, *self.request)
        floats = [Column(name=f"{c.name}_{what}", dtype=DType.FLOAT64) for c in both for what in ("kind", "value")]
        same = [Column(name=f"{c.name}_same", dtype=c.dtype) for c in both if not c.dtype.is_text]
        return (*floats, *same)


def shape_of(rng: random.Random) -> Shape:
    """Return some columns, those of a view and of a request; between them every type."""
    view = rng.sample(list(DType), k=rng.randint(1, len(DType)))
    request = {*(dtype for dtype in DType if dtype not in view), *rng.sample(list(DType), k=3)} - {DType.BYTES}
    return Shape(
        tuple(Column(name=f"v_{dtype}", dtype=dtype) for dtype in view),
        tuple(Column(name=f"r_{dtype}", dtype=dtype) for dtype in sorted(request)),
    )


def fields(columns: tuple[Column, ...]) -> str:
    return ", ".join(f'Field(name="{column.name}", dtype={FEAST[column.dtype]})' for column in columns)


def write_repo(repo: Path, shape: Shape, transform: str = TRANSFORM) -> Path:
    repo.mkdir()
    view = "".join(f", {fields((column,))}" for column in shape.view)
    texts = {
        "feature_store.yaml": CONFIG,
        "definitions.py": DEFINITIONS.format(view=view, request=fields(shape.request), outputs=fields(shape.outputs)),
        "transforms.py": transform,
    }
    for name, text in texts.items():
        (repo / name).write_text(text)
    stamp = pa.timestamp("us", tz="UTC")
    table = {column.name: pa.array([VALUES[column.dtype][0]], _stored(column.dtype)) for column in shape.view}
    pq.write_table(pa.table({"id": [1], **table, "event_time": pa.array([0], stamp)}), repo / "v.parquet")
    return repo


def _stored(dtype: DType) -> pa.DataType:
    return pa.timestamp("us", tz="UTC") if dtype is DType.TIMESTAMP else arrow_type(dtype)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    with connect(tmp_path / "spill", threads=1) as opened:
        yield opened


def planner_of(repo: Path, database: Any) -> Planner:  # noqa: ANN401 - of DuckDB
    return Planner(repo=repo, state=ProjectState(repo / ".skewless"), connect=lambda: database)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 12))])
def test_feasts_call_gives_a_transform_what_ours_does(tmp_path: Path, database: Any, seed: int) -> None:  # noqa: ANN401
    rng = random.Random(seed)
    shape = shape_of(rng)
    repo = write_repo(tmp_path / "repo", shape)
    planner = planner_of(repo, database)
    planner.plan()
    planner.apply(1)
    rows = [
        {
            **{c.name: rng.choice([*VALUES[c.dtype], None]) for c in shape.view},
            **{c.name: rng.choice(VALUES[c.dtype] + [None] * (c.dtype in NULLABLE)) for c in shape.request},
        }
        for _ in range(8)
    ]
    ours = our_call(planner._compile()[0].plan, shape, rows)
    view = FeatureStore(repo_path=str(repo)).get_on_demand_feature_view("made")
    assert [(field.name, str(field.dtype)) for field in view.features] == [
        (column.name, FEAST[column.dtype]) for column in shape.outputs
    ]
    for feasts in (by_dict(view, shape, rows), by_arrow(view, shape, rows)):
        for column in shape.outputs:
            assert numbers(feasts[column.name]) == numbers(ours[column.name].tolist()), column


def our_call(plan: FeaturePlan, shape: Shape, rows: list[dict[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    pinned = plan.select_service("s")
    names = {column.name for column in shape.request}
    asked = parse_rows(pinned, [{"id": 1, **{name: row[name] for name in names}} for row in rows], 100)
    assembler = Assembler(pinned, {})
    made = assembler.assemble_columns(np.zeros(len(rows), dtype=np.int64), {"v": read_of(shape, rows)}, asked.fields)
    return {name.removeprefix("made__"): column for name, column in made.items()}


def read_of(shape: Shape, rows: list[dict[str, Any]]) -> ViewRead:
    n = len(rows)
    nulls = {c.name: np.array([row[c.name] is None for row in rows]) for c in shape.view}
    values: dict[str, npt.NDArray[Any]] = {}
    for column in shape.view:
        plain = [VALUES[column.dtype][0] if row[column.name] is None else row[column.name] for row in rows]
        values[column.name] = np.empty(n, dtype=column.dtype.numpy)
        values[column.name][:] = plain
    versions = replace(Versions.empty(n), event_ts=np.zeros(n, dtype=np.int64))
    return ViewRead(has_row=np.ones(n, dtype=np.bool_), available=True, versions=versions, values=values, nulls=nulls)


def feasts_value(dtype: DType, value: Any) -> Any:  # noqa: ANN401 - of any type
    return from_us(value) if dtype is DType.TIMESTAMP and value is not None else value


def by_dict(view: OnDemandFeatureView, shape: Shape, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the outputs for lists of Python values, as an online response holds them."""
    columns = (*shape.view, *shape.request)
    given = {c.name: [feasts_value(c.dtype, row[c.name]) for row in rows] for c in columns}
    return view.transform_dict({"id": [1] * len(rows), **given})


def by_arrow(view: OnDemandFeatureView, shape: Shape, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the outputs for a table, as a retrieval of the past holds it."""
    table = pa.table(
        {
            **{f"v__{c.name}": pa.array([row[c.name] for row in rows], arrow_type(c.dtype)) for c in shape.view},
            **{c.name: pa.array([row[c.name] for row in rows], arrow_type(c.dtype)) for c in shape.request},
        }
    )
    for column in (*shape.view, *shape.request):
        if column.dtype is DType.TIMESTAMP:
            name = f"v__{column.name}" if column in shape.view else column.name
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].cast(pa.timestamp("us", tz="UTC")))
    found: dict[str, list[Any]] = view.transform_arrow(table).to_pydict()
    return found


def numbers(values: list[Any]) -> list[str]:
    """Return values so that -0.0 differs from 0.0, null equals NaN and a time its microseconds."""
    plain = [
        (value - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6 if isinstance(value, datetime) else value
        for value in values
    ]
    return ["null" if value is None or value != value else float(value).hex() for value in plain]  # noqa: PLR0124


ONE_TIME = Shape((Column(name="x", dtype=DType.INT64),), (Column(name="at", dtype=DType.TIMESTAMP),))
# The present time, which Feast's call passes, is not among the extremes of our own check.
FAILS = TRANSFORM.replace(
    "    outputs = {}\n",
    "    outputs = {}\n"
    "    if 1_750_000_000_000_000 < inputs['at'][0] < 5 * 10**15:\n"
    "        raise ArithmeticError('no such hour')\n",
)


def test_a_function_may_call_itself(tmp_path: Path, database: Any) -> None:  # noqa: ANN401
    again = "    if 'again' not in inputs:\n        return seen({**inputs, 'again': inputs['x'] * 2})\n"
    ends = '    return {name: column for name, column in outputs.items() if not name.startswith("again")}\n'
    text = TRANSFORM.replace("    outputs = {}\n", f"{again}    outputs = {{}}\n").replace("    return outputs\n", ends)
    repo = write_repo(tmp_path / "repo", ONE_TIME, text)
    planner_of(repo, database).apply(1)
    view = FeatureStore(repo_path=str(repo)).get_on_demand_feature_view("made")
    found = view.transform_dict({"x": [None, 5], "at": [from_us(0), from_us(7)]})
    assert (found["x_same"], found["at_value"]) == ([None, 5], [0.0, 7.0])


def test_what_feast_refuses_plan_refuses_and_names_the_view(tmp_path: Path, database: Any) -> None:  # noqa: ANN401
    repo = write_repo(tmp_path / "repo", ONE_TIME, FAILS)
    before = fingerprint(repo)
    with pytest.raises(DefinitionError, match=r"on-demand feature view 'made': ArithmeticError: no such hour"):
        planner_of(repo, database).plan()
    assert fingerprint(repo) == before


def test_a_function_that_is_called_row_by_row_is_refused(tmp_path: Path, database: Any) -> None:  # noqa: ANN401
    repo = write_repo(tmp_path / "repo", ONE_TIME)
    text = (repo / "definitions.py").read_text()
    (repo / "definitions.py").write_text(text.replace('mode="python",', 'mode="python", singleton=True,'))
    with pytest.raises(DefinitionError, match=r"'made': is called row by row .got 'singleton=True'"):
        planner_of(repo, database).plan()
