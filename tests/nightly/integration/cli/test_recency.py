"""The time of an event as a column, and seconds since the last one: in training, predictions and replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.windows.hops import SECOND
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from tests.worlds.command_line import done, run
from tests.worlds.edits import edit
from tests.worlds.windowed import CARRIERS, COUNT, DAY, HOUR, MINUTE, NOW, SERVICE, write_repo

TIMES = ("count", "sum", "mean", "min", "max", "first", "last", "count_distinct")
RECENCY = """\
asking = RequestSource(
    name="asking",
    schema=[Field(name="asked_at", dtype=UnixTimestamp)],
    tags={"skewless.prediction_time": "asked_at"},
)
recency = OnDemandFeatureView(
    name="recency",
    sources=[asking, carrier_now[["last_1h"]]],
    schema=[Field(name="seconds_since_last", dtype=Float64)],
    mode="python",
    udf=transforms.recency,
    udf_string="",
)
service = FeatureService(name="air", features=[carrier_now, recency])
"""
TRANSFORMS = """\
def recency(inputs):
    return {"seconds_since_last": (inputs["asked_at"] - inputs["last_1h"]) / 1e6}
"""


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    repo = write_repo(tmp_path / "p")
    times = "".join(
        f'\n        Aggregation(column="landed_at", function="{one}", time_window=HOUR, name="{one}_1h"),'
        for one in TIMES
    )
    edit(repo, COUNT, COUNT + times)
    edit(repo, SERVICE, RECENCY)
    edit(repo, "from datetime", "import transforms\nfrom datetime")
    (repo / "transforms.py").write_text(TRANSFORMS)
    yield repo
    PrivateServer(repo / ".skewless").stop()


def test_seconds_since_the_last_event_are_one_line_and_the_same_everywhere(repo: Path) -> None:
    done("plan", "--repo", repo)
    for verb in ("apply", "import", "backfill"):
        done(verb, "--repo", repo)
    with Project(repo) as project:
        rows = project.training_set("late").table()
        t = rows["t"].to_pylist()
        check(repo, [CARRIERS[(one - NOW + DAY) // (96 * SECOND) % 3] for one in t], t, rows)
        project.train("late")
        asked = [*CARRIERS, "nobody"]
        answer = project.predict("late", [{"carrier": carrier} for carrier in asked])
        check(repo, asked, answer["t_us"].to_pylist(), answer)
        read = project.online_features("air", {"carrier": [None, "nobody"]})
        counts = read.matrix[:, read.labels.index("carrier_now__count_1h")].tolist()
        # SEMANTICS 3.4: a null key finds nothing, one without events has none.
        assert np.isnan(counts[0])
        assert counts[1] == 0.0
    report = done("replay", "--repo", repo)
    assert (report["ok"], report["compared"], report["different"]) == (True, 4, 0)


def test_the_time_of_the_prediction_is_not_asked_of_the_caller(repo: Path) -> None:
    done("apply", "--repo", repo)
    with Project(repo) as project:
        assert project.applied.plan.request == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"asked_at"}', '"asked"}', "does not name a field of type UnixTimestamp"),
        ("dtype=UnixTimestamp)]", "dtype=Float64)]", "does not name a field of type UnixTimestamp"),
        ("skewless.prediction_time", "skewless.time", "is unknown"),
        (
            'OnDemandFeatureView(\n    name="recency"',
            'OnDemandFeatureView(\n    name="prediction"',
            "has a reserved name",
        ),
        (
            "sources=[asking,",
            'sources=[asking, RequestSource(name="more", schema=[Field(name="asked_at", dtype=UnixTimestamp)]),',
            "two inputs with one name",
        ),
        ("features=[carrier_now, recency]", "features=[asked_alone]", "has neither join keys nor request fields"),
    ],
)
def test_a_time_of_the_prediction_that_cannot_be_right_is_refused(repo: Path, old: str, new: str, problem: str) -> None:
    alone = (
        'asked_alone = OnDemandFeatureView(name="alone", sources=[asking], schema=[Field(name="hour", dtype=Float64)],'
    )
    edit(repo, "service = ", f'{alone} mode="python", udf=transforms.hour, udf_string="")\nservice = ')
    (repo / "transforms.py").write_text(
        TRANSFORMS + '\n\ndef hour(inputs):\n    return {"hour": inputs["asked_at"] / 3.6e9}\n'
    )
    edit(repo, old, new)
    said = run("plan", "--repo", repo, "--json")
    assert said.code == 2, said
    assert problem in said.body["error"]["problem"]


def check(repo: Path, carriers: Sequence[str], times: Sequence[int], table: pa.Table) -> None:
    """Compare features with brute force in integers and fractions, bit for bit."""
    events = pq.read_table(repo / "data/landings.parquet").to_pydict()
    stamps = [[int(one.timestamp()) * SECOND for one in events[name]] for name in ("landed_at", "written")]
    landings = list(zip(events["carrier"], *stamps, strict=True))
    for i, (carrier, t) in enumerate(zip(carriers, times, strict=True)):
        first = (t - HOUR) // (5 * MINUTE) * (5 * MINUTE)
        inside = sorted(at for name, at, known in landings if name == carrier and first <= at < t and known <= t)
        expected: dict[str, float] = dict.fromkeys(("min", "max", "first", "last", "sum", "mean"), float("nan"))
        if inside:
            ends = {"min": inside[0], "first": inside[0], "max": inside[-1], "last": inside[-1]}
            total = {"sum": float(sum(inside)), "mean": float(Fraction(sum(inside), len(inside)))}
            expected = {**{name: float(at) for name, at in ends.items()}, **total}
        features = {f"carrier_now__{name}_1h": value for name, value in expected.items()}
        features |= {f"carrier_now__{name}_1h": float(len(inside)) for name in ("count", "count_distinct")}
        features["recency__seconds_since_last"] = (t - expected["last"]) / 1e6
        for name, value in features.items():
            assert np.float64(table[name][i].as_py()).tobytes() == np.float64(value).tobytes(), (name, carrier, t)
