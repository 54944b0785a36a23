"""What no caller waits for is done two turns later, in order, and nothing of it is lost."""

from __future__ import annotations

import asyncio

import structlog

from skewless.serving.prediction.evaluator import DeferredWork


async def test_work_is_done_in_order_two_turns_later() -> None:
    done: list[str] = []
    afterwards = DeferredWork()
    afterwards.put(lambda: done.append("first"))
    afterwards.put(lambda: done.append("second"))
    await asyncio.sleep(0)
    assert done == []
    await asyncio.sleep(0)
    assert done == ["first", "second"]
    afterwards.put(lambda: done.append("third"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == ["first", "second", "third"]


async def test_what_waits_can_be_done_at_once_and_is_not_done_twice() -> None:
    done: list[str] = []
    afterwards = DeferredWork()
    afterwards.put(lambda: done.append("it"))
    afterwards.run()
    assert done == ["it"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == ["it"]


def test_a_defect_is_logged_and_the_rest_is_done() -> None:
    done: list[str] = []

    async def main() -> None:
        afterwards = DeferredWork()
        afterwards.put(lambda: done.append(str(1 // 0)))
        afterwards.put(lambda: done.append("the rest"))
        afterwards.run()

    with structlog.testing.capture_logs() as logs:
        asyncio.run(main())
    assert done == ["the rest"]
    assert [entry["event"] for entry in logs] == ["after_reply_failed"]
