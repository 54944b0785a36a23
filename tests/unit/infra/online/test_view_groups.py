"""Views of one structure are decoded together: each reads as if it were alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest

from skewless.contract.columns import Column, FeatureRef
from skewless.contract.plan import FeaturePlan, Service
from skewless.contract.status import Int64Array
from skewless.contract.windows.aggregate_inputs import AggregateInputs
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.state_layout import EventOrigins, StateLayout
from skewless.contract.windows.tiles import AppliedPositions, Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.online.marker_history import MarkerStatus
from skewless.infra.online.window_states import ViewReads, WindowStates
from tests.windows.cases import ONE_KEY

N = 5
T = 90_000_000
(KEY,) = ONE_KEY.keys
OTHER_KEY = Column(name="other", dtype=KEY.dtype)
VIEWS = (
    ONE_KEY,
    replace(ONE_KEY, name="by_other_key", keys=(OTHER_KEY,)),
    replace(ONE_KEY, name="of_fewer_features", aggregates=ONE_KEY.aggregates[:-1]),
    replace(ONE_KEY, name="of_other_digits", scales={name: digits + 1 for name, digits in ONE_KEY.scales.items()}),
    replace(ONE_KEY, name="by_other_key_too", keys=(OTHER_KEY,), freshness_us=7),
)


def test_structures() -> None:
    assert [view.structure == ONE_KEY.structure for view in VIEWS] == [True, True, False, False, True]


@pytest.mark.parametrize("n", [N, 40], ids=["few states", "many states"])
@pytest.mark.parametrize("damage", ["none", "corrupt", "short", "rolled up too far", "lost", "no key"])
def test_reads_of_groups(damage: str, n: int) -> None:
    keys: dict[str, list[int | None]] = {KEY.name: list(range(n)), OTHER_KEY.name: list(range(n, 2 * n))}
    states = {view.name: states_of(view, n, seed) for seed, view in enumerate(VIEWS)}
    status = MarkerStatus(frozenset(), dict.fromkeys(states_reader(VIEWS).markers, T - 5))
    own = states["by_other_key"]
    if damage == "corrupt":
        own[2] = bytes(len(own[2] or b""))
    if damage == "short":
        own[0] = (own[0] or b"")[:-3]
    if damage == "rolled up too far":
        own[1] = (own[1] or b"")[:16] + (T + 1).to_bytes(8, "little") + (own[1] or b"")[24:]
    if damage == "lost":
        status = MarkerStatus({states_reader(VIEWS).markers_of("by_other_key")[0]}, status.watermarks)
    if damage == "no key":
        keys[OTHER_KEY.name][3], own[3] = None, None
    together = read(VIEWS, keys, states, status, n)
    assert list(together.reads) == [view.name for view in VIEWS]
    alone = [read([view], keys, states, status, n) for view in VIEWS]
    assert together.corrupt == sum(each.corrupt for each in alone) == (damage in {"corrupt", "short"})
    for view, each in zip(VIEWS, alone, strict=True):
        own_read, expected = together.reads[view.name], each.reads[view.name]
        for name in ("has_row", "mask", "block"):
            np.testing.assert_array_equal(getattr(own_read, name), getattr(expected, name))
        if own_read.available:
            np.testing.assert_array_equal(own_read.versions.event_ts, np.full(n, T - 5))
        unavailable = [np.zeros(n) if one.unavailable is None else one.unavailable for one in (own_read, expected)]
        np.testing.assert_array_equal(*unavailable)
        assert together.applied[view.name].generation == each.applied[view.name].generation
        for field in fields(AppliedPositions):
            slots = (getattr(one.applied[view.name].slots, field.name) for one in (together, each))
            np.testing.assert_array_equal(*slots)
    is_lost = not together.reads["by_other_key"].available
    assert is_lost == (damage == "lost")


def read(
    views: Sequence[WindowView],
    keys: dict[str, list[int | None]],
    states: dict[str, list[bytes | None]],
    status: MarkerStatus,
    n: int,
) -> ViewReads:
    reader = states_reader(views)
    return reader.read(reader.names(keys, n), [state for view in views for state in states[view.name]], status, T)


def states_reader(views: Sequence[WindowView]) -> WindowStates:
    refs = tuple(FeatureRef(group=view.name, name=item.name) for view in views for item in view.aggregates)
    plan = FeaturePlan(
        project="p",
        views=(),
        request=(),
        transforms=(),
        services=(Service(name="all", features=refs),),
        windows=tuple(views),
        sources=(),
    )
    reader = WindowStates(plan)
    numbers = [VIEWS.index(view) + 1 for view in views]
    reader.load_generations([json.dumps({"generation": number, "partitions": ["a"]}).encode() for number in numbers])
    return reader


def states_of(view: WindowView, n: int, seed: int) -> list[bytes | None]:
    """Return states of random events; the last entity has none."""
    rng, layout = np.random.default_rng(seed), StateLayout(view)
    events = 30 * n
    entity: Int64Array = np.sort(rng.integers(0, n - 1, events))
    origin = EventOrigins(
        ts=rng.integers(0, T, events),
        partition=rng.integers(0, 2, events),
        seq=np.arange(events),
    )
    nothing, numbers = np.zeros(events, dtype=np.bool_), rng.integers(-1_000, 1_000, events)
    hashes = rng.integers(0, 2**63, (len(layout.hashed), events)).astype(np.uint64)
    inputs = AggregateInputs(
        null=nothing, value=numbers.astype(np.float64), fixed=numbers, hashes=hashes[0], beyond=nothing
    )
    words = layout.build_states(dict.fromkeys(layout.columns, inputs), origin)
    tiles = Tiles.from_events(layout, n, entity, origin, words, hashes)
    states: list[bytes | None] = TileCodec(view).pack(tiles).to_pylist()
    states[-1] = None
    return states
