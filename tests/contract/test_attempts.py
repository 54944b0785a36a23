"""The contract of every online store for attempts of one backfill task that run at once, or too late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from skewless.contract.errors import StoreError
from skewless.contract.windows.tiles import Tiles
from skewless.infra.reads.online.port import Marker, OnlineStore
from tests.contract.store import StorePlace
from tests.contract.test_tiles import States, made


@pytest.fixture
def store(online_place: StorePlace) -> Iterator[OnlineStore]:
    with online_place.store() as one:
        yield one


class RacingStore:
    """A store in which something happens between a read and the next write."""

    def __init__(self, store: OnlineStore, meanwhile: Callable[[], object]) -> None:
        self._store, self._meanwhile = store, [meanwhile]

    def get(self, keys: Any) -> list[bytes | None]:  # noqa: ANN401 - as the port
        values = self._store.get(keys)
        for happen in self._meanwhile[:1]:
            self._meanwhile.clear()
            happen()
        return values

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        return getattr(self._store, name)


def begin(store: OnlineStore) -> tuple[pa.Table, Tiles, States]:
    """Return keys and states of 300 events, and a new generation in which they are expected."""
    states, other = States(store), States(store, 2)
    states.append("a", made("a", 0, 300))
    held = store.get(states.names())
    kept = [i for i, state in enumerate(held) if state is not None]
    other.events = states.events
    keys = pa.table({"id": pa.array(kept, pa.int64())})
    return keys, states.view.codec.unpack([held[i] for i in kept]), other


def test_4_6_two_attempts_may_create_the_same_states_at_once(store: OnlineStore) -> None:
    keys, tiles, other = begin(store)
    second: Any = RacingStore(store, lambda: other.view.create(store, keys, tiles))
    other.view.create(second, keys, tiles)
    other.check()
    # Events that were appended in the meantime would be lost.
    more = made("a", 300, 100)
    second = RacingStore(store, lambda: other.append("a", more))
    with pytest.raises(StoreError, match="being backfilled by another process"):
        other.view.create(second, keys, tiles)
    other.check()


def test_4_6_an_attempt_that_is_late_replaces_no_state(store: OnlineStore) -> None:
    keys, tiles, other = begin(store)
    with pytest.raises(StoreError, match="already complete, or was lost"):
        other.view.create(store, keys, tiles, ["m"])
    store.marker("m")
    store.set_markers({"m": Marker(-1)}, {"m": None})
    other.view.create(store, keys, tiles, ["m"])
    store.set_markers({"m": Marker(299)}, {"m": -1})
    other.append("a", made("a", 300, 100))
    with pytest.raises(StoreError, match="already complete, or was lost"):
        other.view.create(store, keys, tiles, ["m"])
    other.check()
