"""How the time modes differ, on a log where one of four events came late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.columns import FeatureRef
from skewless.contract.plan import FeaturePlan, Service
from skewless.contract.windows.hops import SECOND
from skewless.infra.log.compaction import compact
from skewless.infra.reads.offline.entity_file import EntityFile
from skewless.infra.reads.offline.log_parts import measure_event_delays
from skewless.training.dataset_files import DatasetFiles
from skewless.training.mode_gap import ModeGap, measure_mode_gap, spread_indices
from tests.worlds.parity import HOUR, MINUTE, NOW, VIEW, Event, ParityWorld
from tests.worlds.plans import make_plan, make_view

LATE: Event = ("AA", NOW - 30 * MINUTE, 5.0, 1)
IN_TIME: list[Event] = [
    ("AA", NOW - 40 * MINUTE, 5.0, 1),
    ("AA", NOW - 20 * MINUTE, 5.0, 1),
    ("UA", NOW - 30 * MINUTE, 1.0, 1),
]
PLAN = FeaturePlan(
    project="p",
    views=(),
    request=(),
    transforms=(),
    services=(Service(name="s", features=tuple(FeatureRef(group=VIEW.name, name=c.name) for c in VIEW.features)),),
    windows=(VIEW,),
)


@pytest.fixture
def parity_world(tmp_path: Path) -> Iterator[ParityWorld]:
    """Three events known two seconds after they happened, and one known 20 minutes after."""
    parity_world = ParityWorld(root=tmp_path, url="")
    for event, delay in [*((event, 2 * SECOND) for event in IN_TIME), (LATE, 20 * MINUTE)]:
        parity_world.accept([event], apply=False)
        log = parity_world.log()
        seq = log.next_seq() - 1
        log.record_end(seq, seq, event[1] + delay)
    yield parity_world
    parity_world.close()


def rows(*asked: tuple[str, int]) -> pa.Table:
    return pa.table({"carrier": [name for name, _ in asked], "__t": pa.array([t for _, t in asked], pa.int64())})


ASKED = [
    ("AA", NOW - 25 * MINUTE),  # the late event had happened, and nobody knew of it
    ("AA", NOW - 5 * MINUTE),  # by then it was known
    ("AA", NOW - 35 * MINUTE),  # before it
    ("UA", NOW - 25 * MINUTE),
]


def check(gap: ModeGap | None) -> None:
    assert gap is not None
    assert gap.rows == 4
    assert gap.features == {
        "carrier_now": {
            "n_1h": 0.25,
            "mean_1h": 0.0,
            "std_1h": 0.25,  # null of one event, 0 of two
            "worst_1h": 0.0,
            "last_1h": 0.0,
            "planes_1h": 0.0,
            "last_2": 0.25,  # null of one event, a value of two
            "last_3": 0.0,
        }
    }
    (delays,) = gap.sources.values()
    assert (delays.events, delays.late, delays.p50_s, delays.p99_s) == (4, 0.25, 2.0, 1200.0)


def test_one_late_event_of_four_is_told_per_feature_and_source(parity_world: ParityWorld) -> None:
    gap = measure_mode_gap(PLAN, parity_world.views, rows(*ASKED))
    check(gap)
    assert gap is not None
    features, delays = gap.lines()
    told = "n_1h in 25.0%, std_1h in 25.0%, last_2 in 25.0%"
    assert features == f"carrier_now: events that became known late change {told} of 4 rows"
    assert delays.startswith("landings: 25.0% of 4 events became known more than 10 s after their event time")
    assert delays.endswith("(p50 2.0 s, p99 1200.0 s)")
    assert gap.as_dict()["sources"]["landings"]["late"] == 0.25


def test_it_is_the_same_after_a_compaction(parity_world: ParityWorld) -> None:
    compact(parity_world.log(), keep=0)
    check(measure_mode_gap(PLAN, parity_world.views, rows(*ASKED)))


def test_where_nothing_is_late_no_feature_differs(parity_world: ParityWorld) -> None:
    gap = measure_mode_gap(PLAN, parity_world.views, rows(ASKED[1], ASKED[3]))
    assert gap is not None
    assert gap.lines()[0] == "carrier_now: events that became known late change no feature in any of 2 rows"


def test_without_windows_or_rows_there_is_nothing_to_tell(parity_world: ParityWorld) -> None:
    assert measure_mode_gap(make_plan(["v.x"], views=[make_view()]), parity_world.views, rows(*ASKED)) is None
    assert measure_mode_gap(PLAN, parity_world.views, rows()) is None


def test_events_whose_end_is_unknown_do_not_count(parity_world: ParityWorld) -> None:
    parity_world.accept([("AA", NOW, 1.0, 1)], apply=False)
    assert measure_event_delays(parity_world.connection, parity_world.views.log_partitions(VIEW)).events == 4
    assert measure_event_delays(parity_world.connection, []).late is None


def test_many_rows_are_spread_evenly() -> None:
    assert spread_indices(0).tolist() == []
    assert len(spread_indices(100_000)) == 50_000
    assert spread_indices(50_001)[-1] == 50_000


def test_a_dataset_tells_it_too(parity_world: ParityWorld, tmp_path: Path) -> None:
    asked = rows(*ASKED)
    moments = asked["__t"].cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"carrier": asked["carrier"], "at": moments}), tmp_path / "asked.parquet")
    entities = EntityFile.find(parity_world.connection, tmp_path / "asked.parquet", PLAN, "at")
    files = DatasetFiles(
        connection=parity_world.connection, views=parity_world.views, plan=PLAN, entities=entities, part_rows=3
    )
    assert files.preview(tmp_path / "out").mode_gap is None
    check(files.write(tmp_path / "out").mode_gap)
    # As when it was begun: what came since does not count.
    parity_world.accept([("AA", NOW - HOUR, 9.0, 1)], apply=False)
    again = files.write(tmp_path / "out").mode_gap
    assert again is not None
    assert again.features["carrier_now"]["n_1h"] == 0.25
