"""SEMANTICS 8.4, read from the store: how old what a view says is, and when it is too old to be used at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.keys import KeyCodec, generation_key, marker_key, window_marker
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.request import ParsedRows
from skewless.contract.rows import RowCodec, Versions
from skewless.contract.status import Status
from skewless.contract.vector import Assembler
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.view import WindowView
from skewless.infra.reads.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.reads.online.port import Marker
from skewless.infra.reads.online.service_vectors import FeatureReader, ServiceVectors, VectorReader
from skewless.infra.reads.online.window_states import WindowStates
from tests.memory_store import BlockingMemoryReader, MemoryStore
from tests.windows.cases import make_window_view
from tests.worlds.plans import make_plan, make_view

T = 1_000 * SECOND
MAX_AGE = 100 * SECOND
PARTITIONS = ("events/s/e/0", "events/s/e/1")
ASK = ParsedRows(keys={"id": [1, 2, None]}, fields={})
WINDOW = replace(make_window_view({"id": DType.INT64}), name="w", max_age_us=MAX_AGE)
TABLE = make_view("v")
AGES = [0, -5 * SECOND, MAX_AGE - 1, MAX_AGE, MAX_AGE + 1, T]


def planned(*views: View | WindowView) -> FeaturePlan:
    tables = [view for view in views if isinstance(view, View)]
    windows = tuple(view for view in views if isinstance(view, WindowView))
    features = [f"{view.name}.{view.features[0].name}" for view in views]
    return replace(make_plan(features, views=tables), windows=windows)


def filled(plan: FeaturePlan, marks: Mapping[str, Marker], partitions: Sequence[str] = PARTITIONS) -> MemoryStore:
    """Return a store that holds a row of entity 1 in each table, and which states windows are read from."""
    store, one = MemoryStore(), np.array([T - 7], dtype=np.int64)
    versions = Versions(
        event_ts=one, created_ts=one, seq=one * 0, run_id=one * 0 + 1, tombstone=np.zeros(1, dtype=np.bool_)
    )
    for view in plan.views:
        (row,) = RowCodec(view).encode(versions, {"x": np.array([0.5])}, {"x": np.zeros(1, dtype=np.bool_)})
        store.put([KeyCodec(plan.project, view).encode([1]) or b""], [row])
    for window in plan.windows:
        text = json.dumps({"generation": 1, "partitions": list(partitions)}).encode()
        store.rows[generation_key(plan.project, window)] = text
    store.markers |= marks
    return store


def marks_of(plan: FeaturePlan, table_us: int, *partitions_us: int) -> dict[str, Marker]:
    """Return the markers of all views: those of tables with one watermark, those of windows with one a partition."""
    found = {marker_key(plan.project, view): Marker(3, table_us) for view in plan.views}
    for window in plan.windows:
        for name, watermark in zip(PARTITIONS, partitions_us, strict=False):
            found[window_marker(plan.project, window, 1, name)] = Marker(3, watermark)
    return found


def served(plan: FeaturePlan, store: MemoryStore, t: int = T) -> ServiceVectors:
    """Return what a server would see."""
    windows = WindowStates(plan)
    windows.load_generations([store.rows.get(pointer) for pointer in windows.pointers])
    reader = VectorReader(Assembler(plan, {}), windows)
    names = reader.names(ASK.keys, ASK.n)
    rows = [None if name is None else store.rows.get(name) for name in names]
    marker_status = MarkerHistory().check_markers(reader.markers, [store.markers.get(name) for name in reader.markers])
    return reader.vectors(names, rows, reader.check_ages(marker_status, t), t, ASK)


@pytest.mark.parametrize(("first", "second"), [*product([T - 9, T - 1, T, T + 5, 0], [T - 4, T + 1])])
def test_8_4_the_event_time_of_a_windowed_view_is_its_least_watermark_but_not_after_t(first: int, second: int) -> None:
    plan = planned(WINDOW)
    states = WindowStates(plan)
    states.load_generations([filled(plan, {}).rows[pointer] for pointer in states.pointers])
    names = states.names(ASK.keys, ASK.n)
    marker_status = MarkerStatus(frozenset(), dict(zip(states.markers, (first, second), strict=True)))
    read = states.read(names, [None] * ASK.n, marker_status, T).reads["w"]
    assert read.versions.event_ts.tolist() == [min(T, first, second)] * ASK.n
    assert (read.available, read.has_row.tolist()) == (True, [True, True, False])
    vectors = served(plan, filled(plan, marks_of(plan, 0, first, second)))
    if first:
        assert vectors.event_ts.tolist() == [[min(T, first, second)]] * ASK.n
    assert vectors.watermark.tolist() == [min(first, second)], "as it is, perhaps after t"


def test_8_4_a_watermark_changes_no_value() -> None:
    plan = planned(replace(WINDOW, max_age_us=0), TABLE)
    matrices = [served(plan, filled(plan, marks_of(plan, at, at, at))).matrix.tobytes() for at in (0, T - 9, T)]
    assert len(set(matrices)) == 1


def test_8_4_the_event_time_of_a_row_is_its_own_whatever_the_watermark() -> None:
    plan = planned(TABLE)
    for watermark in (0, T - 9, T + 9):
        vectors = served(plan, filled(plan, marks_of(plan, watermark)))
        assert (vectors.event_ts[0, 0], vectors.watermark.tolist()) == (T - 7, [watermark])
        assert vectors.status[:, 0].tolist() == [Status.PRESENT, Status.NOT_FOUND, Status.NOT_FOUND]


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("behind", [0, 1])
def test_8_4_a_windowed_view_whose_watermark_is_older_than_max_age_is_unavailable(age: int, behind: int) -> None:
    plan = planned(WINDOW, TABLE)
    watermarks = [T, T]
    watermarks[behind] = T - age
    vectors = served(plan, filled(plan, marks_of(plan, T, *watermarks)))
    expected = [Status.UNAVAILABLE] * 3 if age > MAX_AGE else [Status.PRESENT, Status.PRESENT, Status.NOT_FOUND]
    assert vectors.status[:, 1].tolist() == expected
    assert vectors.status[:, 0].tolist() == [Status.PRESENT, Status.NOT_FOUND, Status.NOT_FOUND]
    assert np.isnan(vectors.matrix[:, 0]).tolist() == [age > MAX_AGE, age > MAX_AGE, True]


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("limited", [["v"], ["v", "z"]])
def test_8_4_a_view_whose_last_run_is_older_than_max_age_is_unavailable(age: int, limited: list[str]) -> None:
    views = [make_view("v"), make_view("z")]
    plan = planned(*(replace(view, max_age_us=MAX_AGE if view.name in limited else 0) for view in views))
    vectors = served(plan, filled(plan, marks_of(plan, T - age)))
    for i, view in enumerate(plan.views):
        gone = age > MAX_AGE and view.name in limited
        absent = Status.UNAVAILABLE if gone else Status.NOT_FOUND
        assert vectors.status[:, i].tolist() == [absent if gone else Status.PRESENT, absent, absent]
        assert np.isnan(vectors.matrix[:, i]).tolist() == [gone, True, True]


@pytest.mark.parametrize("view", [WINDOW, replace(TABLE, max_age_us=MAX_AGE)], ids=["window", "table"])
def test_8_4_where_nothing_is_known_of_a_view_it_is_older_than_any_max_age(view: View | WindowView) -> None:
    plan = planned(view)
    vectors = served(plan, filled(plan, marks_of(plan, 0, 0, 0)))
    assert vectors.status[:, 0].tolist() == [Status.UNAVAILABLE] * 3
    assert vectors.watermark.tolist() == [0]


def test_8_4_a_windowed_view_of_no_partition_at_all_is_older_than_any_max_age() -> None:
    """As it is after a bootstrap while no worker has ever run: nobody says that nothing has arrived."""
    plan = planned(WINDOW)
    store = filled(plan, {}, partitions=())
    online = FeatureReader(plan, BlockingMemoryReader(store)).read(ASK, T)
    assert served(plan, store).watermark.tolist() == [0] == list(online.watermarks.values())
    assert online.status["w"].tolist() == [Status.UNAVAILABLE] * 3
    assert served(plan, store).status[:, 0].tolist() == [Status.UNAVAILABLE] * 3


def test_8_4_without_a_limit_a_view_of_no_partition_answers_and_says_that_it_knows_nothing() -> None:
    plan = planned(replace(WINDOW, max_age_us=0))
    vectors = served(plan, filled(plan, {}, partitions=()))
    assert vectors.status[:, 0].tolist() == [Status.PRESENT, Status.PRESENT, Status.NOT_FOUND]
    assert (vectors.watermark.tolist(), vectors.event_ts[:2, 0].tolist()) == ([0], [0, 0])


def test_8_4_a_store_that_did_not_answer_has_no_watermark() -> None:
    plan = planned(WINDOW, TABLE)
    reader = VectorReader(Assembler(plan, {}), WindowStates(plan))
    vectors = reader.unavailable(T, ASK)
    assert vectors.watermark.tolist() == [0, 0]
    assert vectors.status.tolist() == [[Status.UNAVAILABLE] * 2] * ASK.n


MOMENTS = st.sampled_from([0, T - 9, T - MAX_AGE - 1, T - MAX_AGE, T, T + 9])
MARKED = st.none() | st.builds(Marker, st.just(3), MOMENTS)


@settings(deadline=None)
@given(MARKED, MARKED, MARKED, st.sampled_from([0, 5, MAX_AGE]), st.sampled_from([0, 5, MAX_AGE]), st.booleans())
def test_8_4_notebooks_and_servers_say_the_same_of_every_view(
    table: Marker | None,
    first: Marker | None,
    second: Marker | None,
    table_limit: int,
    window_limit: int,
    windowed: bool,  # noqa: FBT001
) -> None:
    windows = (replace(WINDOW, max_age_us=window_limit),) if windowed else ()
    plan = planned(replace(TABLE, max_age_us=table_limit), *windows)
    names = [*marks_of(plan, 0, 0, 0)]
    found = dict(zip(names, (table, first, second), strict=False))
    store = filled(plan, {name: mark for name, mark in found.items() if mark is not None})
    vectors = served(plan, store)
    reader = FeatureReader(plan, BlockingMemoryReader(store))
    online = reader.read(ASK, T)
    reads, watermarks = reader.views(ASK, T)
    assert vectors.matrix.tobytes() == online.matrix.tobytes()
    assert watermarks == online.watermarks
    for i, view in enumerate(plan.all_views):
        assert vectors.status[:, i].tolist() == online.status[view.name].tolist()
        assert vectors.watermark[i] == watermarks[view.name]
        own = [found[name] for name in (names[:1] if view.name == "v" else names[1:])]
        oldest = min(0 if mark is None else mark.watermark_us for mark in own)
        limit = table_limit if view.name == "v" else window_limit
        gone = None in own or (limit > 0 and T - oldest > limit)
        assert watermarks[view.name] == oldest
        assert (Status.UNAVAILABLE in vectors.status[:, i]) == gone
        assert reads[view.name].available == (not gone)
        if view.name == "w" and not gone:
            ages = online.age_us("w").tolist()
            assert ages == [max(T - oldest, 0), max(T - oldest, 0), -1]
