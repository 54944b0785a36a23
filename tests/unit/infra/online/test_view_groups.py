"""Views of one structure are decoded together, and read as if each were alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, chain

import numpy as np
import pytest

from skewless.contract.columns import Column, FeatureRef
from skewless.contract.dtypes import DType
from skewless.contract.plan import FeaturePlan, Service, View
from skewless.contract.reads import concatenate_versions
from skewless.contract.request import ParsedRows
from skewless.contract.rows import RowCodec, Versions
from skewless.contract.status import Int64Array, Status
from skewless.contract.vector import Assembler
from skewless.contract.windows.aggregate_inputs import AggregateInputs
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.state_layout import EventOrigins, StateLayout
from skewless.contract.windows.tiles import AppliedPositions, Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.reads.online.marker_history import MarkerStatus
from skewless.infra.reads.online.service_vectors import ServiceVectors, VectorReader
from skewless.infra.reads.online.window_states import WindowStates
from tests.windows.cases import ONE_KEY
from tests.worlds.plans import make_plan, make_transform, make_view

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


@pytest.mark.parametrize("damage", ["none", "corrupt", "short", "rolled up too far", "lost", "no key"])
@pytest.mark.parametrize("n", [1, N, 40], ids=["one state", "few states", "many states"])
def test_blocks_of_groups(damage: str, n: int) -> None:
    keys: dict[str, list[int | None]] = {KEY.name: list(range(n)), OTHER_KEY.name: list(range(n, 2 * n))}
    states = {view.name: states_of(view, n, seed) for seed, view in enumerate(VIEWS)}
    status = MarkerStatus(frozenset(), dict.fromkeys(states_reader(VIEWS).markers, T - 5))
    own = states["by_other_key"]
    if damage == "corrupt":
        own[-1] = bytes(40)
    if damage == "short":
        own[0] = (own[0] or b"")[:-3]
    if damage == "rolled up too far":
        own[0] = (own[0] or b"")[:16] + (T + 1).to_bytes(8, "little") + (own[0] or b"")[24:]
    if damage == "lost":
        status = MarkerStatus({states_reader(VIEWS).markers_of("by_other_key")[0]}, status.watermarks)
    if damage == "no key":
        keys[OTHER_KEY.name][0], own[0] = None, None
    reader = states_reader(VIEWS)
    names, stored = reader.names(keys, n), [state for view in VIEWS for state in states[view.name]]
    reads = reader.read(names, stored, status, T)
    together = reader.read_together(names, stored, status, T)
    assert reads.corrupt == (damage in {"corrupt", "short"})
    assert (together is not None) == (damage == "none" and n <= N)
    if together is None:
        return
    blocks, applied = together
    matrix = np.concatenate(blocks, axis=1)
    for view in VIEWS:
        expected = reads.reads[view.name]
        assert expected.block is not None
        positions = [reader.columns.index(FeatureRef(group=view.name, name=item.name)) for item in view.aggregates]
        np.testing.assert_array_equal(matrix[:, positions], expected.block)
        assert applied[view.name].generation == reads.applied[view.name].generation
        assert_same_slots(applied[view.name].slots, reads.applied[view.name].slots)


def assert_same_slots(one: AppliedPositions, other: AppliedPositions) -> None:
    for field in fields(AppliedPositions):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


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
    """Return states of random events; of several entities, the last has none."""
    rng, layout = np.random.default_rng(seed), StateLayout(view)
    events = 30 * n
    entity: Int64Array = np.sort(rng.integers(0, max(n - 1, 1), events))
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
    return [*states[:-1], None] if n > 1 else states


@pytest.mark.parametrize("n", [1, 3, 7])
@pytest.mark.parametrize("has_windows", [True, False])
def test_vectors_without_decoding_view_by_view(n: int, *, has_windows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEMANTICS 6.2: rows, texts, windows, request fields and transforms give the bits that they give one by one."""
    service = MadeService.of(n, VIEWS if has_windows else ())
    with monkeypatch.context() as patch:
        patch.delattr(VectorReader, "reads")
        found = service.vectors(range(n))
    reader, status, request = service.reader, service.status, service.request(range(n))
    names = reader.names(request.keys, n)
    reads = reader.reads(names, service.stored(range(n)), status, T, n)
    expected = reader.assemble(reads, status, T, request)
    assert found.matrix.flags.c_contiguous
    assert found.matrix.tobytes() == expected.matrix.tobytes()
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_array_equal(found.watermark, expected.watermark)
    has_row = found.status != Status.NOT_FOUND
    np.testing.assert_array_equal(found.event_ts[has_row], expected.event_ts[has_row])
    assert list(found.versions) == list(expected.versions)
    assert found.applied.keys() == expected.applied.keys()
    for both in ([found], [found, found]):
        joined = concatenate_versions([one.versions for one in both])
        for view, own in expected.versions.items():
            for field in fields(own):
                values = np.concatenate([getattr(own, field.name)] * len(both))
                np.testing.assert_array_equal(getattr(joined[view], field.name), values)


@pytest.mark.parametrize("sizes", [(1, 6), (3, 4), (7, 0), (2, 2, 3)])
@pytest.mark.parametrize("has_windows", [True, False])
def test_vectors_of_a_batch_are_the_vectors_of_its_parts(sizes: tuple[int, ...], *, has_windows: bool) -> None:
    service = MadeService.of(sum(sizes), VIEWS if has_windows else ())
    whole = service.vectors(range(service.n))
    for stop, size in zip(accumulate(sizes), sizes, strict=True):
        start = stop - size
        alone = service.vectors(range(start, stop))
        for name in ("matrix", "status", "event_ts"):
            np.testing.assert_array_equal(getattr(whole, name)[start:stop], getattr(alone, name))
        np.testing.assert_array_equal(whole.watermark, alone.watermark)
        for view, own in alone.versions.items():
            for field in fields(own):
                values = getattr(whole.versions[view], field.name)[start:stop]
                np.testing.assert_array_equal(values, getattr(own, field.name))
        for view, progress in alone.applied.items():
            assert whole.applied[view].generation == progress.generation
            assert_same_slots(whole.applied[view].slots.of_entities(start, stop), progress.slots)


@dataclass(frozen=True, kw_only=True)
class MadeService:
    """A service of two row views, some windowed views, a request field and a transform, with what n entities have."""

    n: int
    reader: VectorReader
    status: MarkerStatus
    rows: list[bytes | None]
    states: list[list[bytes | None]]

    @classmethod
    def of(cls, n: int, windows: Sequence[WindowView]) -> MadeService:
        keys = {KEY.name: KEY.dtype}
        card = make_view("card", keys=keys, features={"word": DType.STRING, "x": DType.FLOAT32}, ttl_us=T)
        shop = make_view("shop", keys=keys, features={"y": DType.INT64, "z": DType.BOOL})
        source = "def f(inputs):\n    return {'out': inputs['y'] * inputs['asked'] + inputs['t']}\n"
        made = make_transform(source, ["shop.y", "request.asked", "prediction.t"])
        shown = [f"{view.name}.{item.name}" for view in windows for item in view.aggregates[::2]]
        features = ["request.asked", *shown, "card.word", "shop.z", "made.out"]
        request = {"asked": DType.FLOAT32}
        plan = make_plan(features, views=[card, shop], request=request, transforms=[made])
        plan = replace(plan, windows=tuple(windows))
        states = WindowStates(plan)
        states.load_generations([json.dumps({"generation": 1, "partitions": ["a"]}).encode() for _ in windows])
        reader = VectorReader(Assembler(plan, {"card__word": ["b", "a"]}), states)
        return cls(
            n=n,
            reader=reader,
            status=MarkerStatus(frozenset(), dict.fromkeys(reader.markers, T - 5)),
            rows=rows_of(card, shop, n),
            states=[states_of(view, n, seed) for seed, view in enumerate(windows)],
        )

    def request(self, rows: range) -> ParsedRows:
        return ParsedRows(
            keys={name: list(rows) for name in (KEY.name, OTHER_KEY.name)}, fields={"asked": np.array(rows) / 7}
        )

    def stored(self, rows: range) -> list[bytes | None]:
        row = [self.rows[2 * i + view] for i in rows for view in (0, 1)]
        return [*row, *(states[i] for states in self.states for i in rows)]

    def vectors(self, rows: range) -> ServiceVectors:
        request = self.request(rows)
        names = self.reader.names(request.keys, len(rows))
        return self.reader.vectors(names, self.stored(rows), self.status, T, request)


def rows_of(card: View, shop: View, n: int) -> list[bytes | None]:
    """Return rows of both views for n entities; the second entity has none, the third a null and an unknown word."""
    origin = replace(Versions.empty(n), event_ts=np.arange(n) * 10 - T, seq=np.arange(n), run_id=np.arange(n))
    words = np.array(["a", "b", "c"] * n, dtype=object)[:n]
    null = np.arange(n) == 2
    numbers = {"x": np.arange(n, dtype=np.float32) / 3, "y": np.arange(n), "z": np.arange(n) % 2 == 0}
    cards = RowCodec(card).encode(origin, {"word": words, **numbers}, {"word": np.zeros(n, np.bool_), "x": null})
    shops = RowCodec(shop).encode(origin, numbers, {"y": null, "z": null})
    return [None if i // 2 == 1 else row for i, row in enumerate(chain.from_iterable(zip(cards, shops, strict=True)))]
