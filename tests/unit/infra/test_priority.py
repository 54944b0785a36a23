"""A thread that gives way has a lower priority than the others."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from infra.priority import give_way


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_only_the_thread_itself_gives_way() -> None:
    found: list[int] = []

    def work() -> None:
        give_way()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] >= max(before, 10)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
