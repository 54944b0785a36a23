"""The contract of every online store for readers, on DynamoDB."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

import pytest

from skewless.infra.reads.online.port import OnlineReader
from tests.contract.store import StorePlace
from tests.nightly.contract import test_readers
from tests.nightly.contract.test_readers import blocking, filled_store
from tests.worlds.waiting import until

__all__ = ["blocking", "filled_store"]
# Calls run at once, so callbacks come in any order.
_OTHERS = {"test_a_callback_is_told_once"}
for _name, _test in inspect.getmembers(test_readers, inspect.isfunction):
    if _name.startswith("test_") and _name not in _OTHERS:
        globals()[_name] = _test


@pytest.fixture
def loop() -> Callable[[], asyncio.AbstractEventLoop]:
    return asyncio.new_event_loop


def test_a_callback_is_told_once_in_any_order(filled_store: StorePlace) -> None:
    told: list[object] = []

    async def conversation(reader: OnlineReader) -> None:
        for key in test_readers.KEYS[:20]:
            reader.start_read([key], ["m"], told.append)
        await asyncio.to_thread(until, lambda: len(told) >= 20)

    test_readers.converse(filled_store.url, conversation)
    mark = test_readers.MARKS["m"]
    assert sorted(map(repr, told)) == sorted(repr(([test_readers.ROWS[key]], [mark])) for key in test_readers.KEYS[:20])
